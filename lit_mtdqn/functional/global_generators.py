"""The generators that a process shares: Python's, NumPy's and PyTorch's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from lit_mtdqn.functional.packing import packed, unpacked


def global_random_state() -> dict[str, Any]:
    """Return the states of all global generators, as checkpoints hold them."""
    is_used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    state = {
        "python": random.getstate(),
        # Ours is never drawn from, but users' environments may.
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if is_used else [],
    }
    found: dict[str, Any] = packed(state)
    return found


def set_global_random_state_(state: dict[str, Any]) -> None:
    """Let all global generators draw on from where `global_random_state` saw them.

    Those of devices stay as they are where there are fewer devices now, or more.
    """
    found = unpacked(state)
    random.setstate(found["python"])
    np.random.set_state(found["numpy"])  # noqa: NPY002
    torch.set_rng_state(found["torch"])
    if torch.cuda.is_available() and len(found["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(found["cuda"])
