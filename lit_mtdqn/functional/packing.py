"""States as checkpoints hold them: tensors and plain containers, whose loading runs no code."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

ARRAY = "numpy"
PLAIN = (bool, int, float, str, bytes, type(None))


def packed(state: Any) -> Any:
    """Return a copy of a state in which arrays are tensors.

    Args:
        state: Dictionaries, lists and tuples of arrays, tensors, numbers, texts and None.

    Raises:
        TypeError: If it holds anything else.
    """
    if isinstance(state, np.ndarray):
        return {ARRAY: torch.from_numpy(state.copy())}
    if isinstance(state, np.generic):
        return state.item()
    if isinstance(state, Tensor):
        return state.detach().clone()
    if type(state) is dict:
        return {key: packed(value) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(packed(value) for value in state)
    if type(state) in PLAIN:
        return state
    raise TypeError(f"`state` must hold arrays and plain values. Got {type(state).__name__}.")


def unpacked(state: Any) -> Any:
    """Return what `packed` has made its result of."""
    if isinstance(state, dict):
        if list(state) == [ARRAY]:
            return state[ARRAY].numpy().copy()
        return {key: unpacked(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(unpacked(value) for value in state)
    return state
