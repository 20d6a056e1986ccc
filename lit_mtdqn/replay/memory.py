"""Whether a replay fits, before the run starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil
import torch

from lit_mtdqn.replay.buffer import StorageKind
from lit_mtdqn.types import require

GIB = 2**30
# Share of the free memory that replays may plan to take; the rest is for batches and the system.
USABLE = 0.9


def replay_bytes(
    capacity: int, observation_bytes: int, num_actions: int, masked: bool, labels: int = 0
) -> int:
    """Return the size of one full replay.

    Args:
        capacity: Number of transitions.
        observation_bytes: Size of one padded observation; each transition holds two.
        num_actions: Padded number of actions.
        masked: Whether masks of allowed actions are stored.
        labels: Numbers that are stored with each transition besides.
    """
    action, reward, discount = 8, 4, 4
    masks = 2 * num_actions if masked else 0
    each = 2 * observation_bytes + action + reward + discount + masks + 4 * labels
    return capacity * each


def check_folder(folder: str | Path) -> None:
    """Make the folder of `storage="disk"`, parents included.

    Raises:
        ValueError: If that cannot be, or nothing can be written there.
    """
    must = "be a folder that can be written to"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"`data.replay_folder` must {must}. Got {error.filename!r}: {error.strerror}."
        ) from error
    require(os.access(folder, os.W_OK), "data.replay_folder", must, str(folder))


def check_memory(
    needed: int,
    storage: StorageKind,
    device: torch.device | str = "cpu",
    *,
    folder: str | Path | None = None,
    local_ranks: int = 1,
) -> None:
    """Refuse a run whose full replays would not fit.

    Args:
        needed: Bytes of all replays of this rank.
        storage: Where they are kept.
        device: The learner's device, for `storage="device"`.
        folder: Where the files of `storage="disk"` lie; None is the system's temporary folder.
        local_ranks: Ranks on this machine, which share its memory and disk.

    Raises:
        ValueError: If they need more than nine tenths of what is free; the message says both.
    """
    device = torch.device(device)
    on_gpu = storage == "device" and device.type == "cuda"
    needed *= 1 if on_gpu else local_ranks
    if on_gpu:
        free = int(torch.cuda.mem_get_info(device)[0])
    elif storage == "disk":
        free = shutil.disk_usage(folder or tempfile.gettempdir()).free
    else:
        free = int(psutil.virtual_memory().available)
    if needed > USABLE * free:
        elsewhere = "`data.replay_folder`" if storage == "disk" else "`data.replay_storage=disk`"
        raise ValueError(
            f"`data.replay_capacity` must fit into {storage}. Got replays of "
            f"{needed / GIB:.1f} GiB when full, with {free / GIB:.1f} GiB free. Lower "
            f"`data.replay_capacity` or set {elsewhere}."
        )
