"""The generators that a process shares: Python's, NumPy's and PyTorch's."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.functional.packing import packed, unpacked


def global_random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of all global generators, as checkpoints hold them.

    Args:
        device: The run's own; what other GPUs draw is no part of it.
    """
    state = {
        "python": random.getstate(),
        # Ours is never drawn from, but users' environments may.
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
    }
    found: dict[str, Any] = packed(state)
    return found


def set_global_random_state_(state: dict[str, Any], device: torch.device) -> None:
    """Let all global generators draw on from where `global_random_state` saw them.

    That of a GPU stays as it is where none was saved for it, and a warning says so.

    Args:
        state: What `global_random_state` has returned.
        device: The run's own now, which may be another than it was.
    """
    found = unpacked(state)
    random.setstate(found["python"])
    np.random.set_state(found["numpy"])  # noqa: NPY002
    torch.set_rng_state(found["torch"])
    own = _state_for(device, found["cuda"])
    if own is not None:
        torch.cuda.set_rng_state(own, device)
    elif found["cuda"] or device.type == "cuda":
        warnings.warn(
            f"Numbers drawn on {device} are others than in a run that was never stopped: the "
            f"checkpoint holds the generators of {len(found['cuda'])} GPU(s).",
            stacklevel=2,
        )


def _state_for(device: torch.device, states: Sequence[Tensor]) -> Tensor | None:
    """Return the state for a GPU, or None if there is none.

    Older checkpoints hold those of all GPUs that were visible, in their order.
    """
    place = 0 if len(states) == 1 else device.index or 0
    return states[place] if device.type == "cuda" and place < len(states) else None
