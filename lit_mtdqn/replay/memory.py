"""Whether a replay fits, before the run starts."""

from __future__ import annotations

import shutil
import tempfile

import psutil
import torch

from lit_mtdqn.replay.buffer import StorageKind

GIB = 2**30
# Share of the free memory that replays may plan to take; the rest is for batches and the system.
USABLE = 0.9


def replay_bytes(capacity: int, observation_bytes: int, num_actions: int, masked: bool) -> int:
    """Return the size of one full replay.

    Args:
        capacity: Number of transitions.
        observation_bytes: Size of one padded observation; each transition holds two.
        num_actions: Padded number of actions.
        masked: Whether masks of allowed actions are stored.
    """
    action, reward, discount = 8, 4, 4
    masks = 2 * num_actions if masked else 0
    return capacity * (2 * observation_bytes + action + reward + discount + masks)


def check_memory(needed: int, storage: StorageKind, device: torch.device | str = "cpu") -> None:
    """Refuse a run whose full replays would not fit.

    Args:
        needed: Bytes of all replays together.
        storage: Where they are kept.
        device: The learner's device, for `storage="device"`.

    Raises:
        ValueError: If they need more than nine tenths of what is free; the message says both.
    """
    free = _free_bytes(storage, torch.device(device))
    if needed > USABLE * free:
        raise ValueError(
            f"`data.replay_capacity` must fit into {storage}. Got replays of "
            f"{needed / GIB:.1f} GiB when full, with {free / GIB:.1f} GiB free. Lower "
            "`data.replay_capacity` or set `data.replay_storage=disk`."
        )


def _free_bytes(storage: StorageKind, device: torch.device) -> int:
    if storage == "disk":
        return shutil.disk_usage(tempfile.gettempdir()).free
    if storage == "device" and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
