"""Random numbers on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Size = int | Sequence[int]


class TensorGenerator:
    """Has those methods of `numpy.random.Generator` that are used here, and returns tensors.

    The numbers are others than NumPy's under the same seed, and others on each kind of device.

    Args:
        seed: Seed; None takes a random one.
        device: Where it draws.
    """

    def __init__(self, seed: int | None, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._generator = torch.Generator(self._device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def random(self, size: Size) -> Tensor:
        """Return uniform numbers in [0, 1), float64."""
        return self._drawn(torch.rand, size, torch.float64)

    def uniform(self, low: float, high: float, size: Size) -> Tensor:
        """Return uniform numbers in [low, high), float64."""
        return low + (high - low) * self.random(size)

    def integers(self, high: int, size: Size) -> Tensor:
        """Return integers below `high`, int64."""
        return torch.randint(high, _shape(size), generator=self._generator, device=self._device)

    def standard_normal(self, size: Size, dtype: Any = np.float64) -> Tensor:
        """Return normal numbers of mean 0 and variance 1, of one of NumPy's types."""
        return self._drawn(torch.randn, size, torch.from_numpy(np.empty(0, dtype)).dtype)

    @property
    def bit_generator(self) -> TensorGenerator:
        """What has the state, as NumPy's generators do it."""
        return self

    @property
    def state(self) -> Tensor:
        """A copy of the state, which draws go on from where it is set."""
        return self._generator.get_state()

    @state.setter
    def state(self, state: Tensor) -> None:
        self._generator.set_state(state)

    def _drawn(self, draw: Any, size: Size, dtype: torch.dtype) -> Tensor:
        numbers: Tensor = draw(
            _shape(size), generator=self._generator, device=self._device, dtype=dtype
        )
        return numbers


def _shape(size: Size) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)
