"""What environments that are written for batches have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from lit_mtdqn.functional.draws import TensorGenerator
from lit_mtdqn.types import Array

Integers = NDArray[np.integer[Any]]
# Observations, rewards, `terminated`, `truncated`, each [num_envs, ...], and `info`.
StepResult = tuple[Array, Array, Array, Array, dict[str, Any]]


class PlaceableVectorEnv(VectorEnv[Array, Array, Array]):
    """Base of batches that are kept as arrays, or as tensors of a device.

    On a device actions, too, are tensors, and are not checked, because looking at them would wait
    for the device.

    Args:
        device: Where the batch is kept, such as `cuda`; None keeps arrays.
    """

    def __init__(self, device: torch.device | str | None) -> None:
        self.device = None if device is None else torch.device(device)
        if self.device is not None:
            self.np_random = TensorGenerator(None, self.device)  # type: ignore[assignment]

    def seed(self, seed: int | None) -> None:
        """Take a new generator; None draws on."""
        if self.device is None:
            super().reset(seed=seed)
        elif seed is not None:
            self.np_random = TensorGenerator(seed, self.device)  # type: ignore[assignment]
