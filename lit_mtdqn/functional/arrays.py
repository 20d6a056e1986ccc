"""What NumPy arrays and tensors do not spell alike, for code that is written for both.

Both have the same operators and slices and, under most of their names, the same functions, which
such code takes from `namespace_of`. It looks at no number of a tensor, because that would wait for
the device, and keeps in mind that PyTorch takes a Boolean times a Python number for a float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.types import Array


def namespace_of(array: Array) -> Any:
    """Return the module that has the functions of an array, `numpy` or `torch`."""
    return np if isinstance(array, np.ndarray) else torch


def placed(array: np.ndarray, device: torch.device | str | None) -> Array:
    """Return an array as a tensor of a device; as it is where there is none."""
    return array if device is None else torch.from_numpy(array).to(device)


def cast(array: Array, dtype: str) -> Array:
    """Return a copy of a type such as `float32`, its last axis contiguous."""
    if isinstance(array, np.ndarray):
        return array.astype(dtype, "C")
    layout = torch.contiguous_format
    return array.to(getattr(torch, dtype), memory_format=layout, copy=True)


def may_hold(mask: Array) -> bool:
    """Return whether a mask holds somewhere; a tensor's always may."""
    return isinstance(mask, Tensor) or bool(mask.any())


def places_of(mask: Array, count: int | None = None) -> tuple[Array, ...]:
    """Return where a mask holds, one array of places for each of its axes, in order.

    Args:
        mask: Booleans.
        count: How often it holds; needed of a tensor.
    """
    if isinstance(mask, Tensor):
        assert count is not None
        return torch.nonzero_static(mask, size=count).unbind(1)
    return np.nonzero(mask)


def fill_(array: Array, where: Array, number: float) -> None:
    """Set an array to a number where a mask of its shape holds, in place."""
    if isinstance(array, np.ndarray):
        array[where] = number
    else:
        array.masked_fill_(where, number)


def renew_(columns: Array, where: Array, draw: Callable[[int], Array]) -> None:
    """Overwrite some columns by drawn ones, in place.

    Args:
        columns: [R, N].
        where: Which columns, [N].
        draw: Returns a number of new ones, [R, number]; for tensors N of them, of which some are
            not needed.
    """
    if isinstance(columns, Tensor):
        columns.copy_(torch.where(where, draw(len(where)), columns))
    else:
        columns[:, where] = draw(int(where.sum()))


class Table:
    """Numbers that are used beside arrays of either kind; they move to a device once.

    Args:
        values: The numbers.
    """

    def __init__(self, values: Any) -> None:
        self._array = np.asarray(values)
        self._tensors: dict[torch.device, Tensor] = {}

    def beside(self, other: Array) -> Array:
        """Return them as an array, or as a tensor of the other's device."""
        if isinstance(other, np.ndarray):
            return self._array
        if other.device not in self._tensors:
            self._tensors[other.device] = torch.from_numpy(self._array).to(other.device)
        return self._tensors[other.device]
