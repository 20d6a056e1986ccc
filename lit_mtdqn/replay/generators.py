"""Where a replay's draws stand, stored beside its rows."""

from __future__ import annotations

from pathlib import Path

import torch
from tensordict import TensorDict
from torch import Tensor

from lit_mtdqn.functional.archives import archive_of

STATE_FILE = "generator.pt"
# Where torchrl keeps it, which older replays left to do so.
OLDER_STATE = "rng_state"


def dump_generator(generator: torch.Generator, folder: Path) -> None:
    """Write the state of a generator, and the kind of device that it is for, into a folder."""
    saved = {"device": generator.device.type, "state": generator.get_state()}
    (folder / STATE_FILE).write_bytes(archive_of(saved))


def continue_generator_(generator: torch.Generator, folder: Path) -> bool:
    """Let a generator draw on from where the one in a folder stood.

    States of unlike kinds of devices mean nothing to each other: it then stays as it is.

    Args:
        generator: The generator.
        folder: What `dump_generator` wrote to.

    Returns:
        Whether it does.
    """
    kind, state = _stored_state(folder)
    if kind != generator.device.type:
        return False
    generator.set_state(state)
    return True


def _stored_state(folder: Path) -> tuple[str, Tensor]:
    """Return the kind of device and the state."""
    if (folder / STATE_FILE).is_file():
        saved = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        return saved["device"], saved["state"]
    state: Tensor = TensorDict.load_memmap(folder / OLDER_STATE)["rng_state"]
    # TensorDict calls the device of all that it writes the CPU; the state's size tells them apart.
    is_of_cpu = state.shape == torch.Generator().get_state().shape
    return "cpu" if is_of_cpu else "cuda", state.clone()
