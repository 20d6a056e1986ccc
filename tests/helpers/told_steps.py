"""Vector steps that tell by whom they were played, for a process that imports no test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from lit_mtdqn.types import StepRow

Array = np.ndarray


def told_steps(network: nn.Linear, epsilon: Callable[[], Array]) -> Iterator[StepRow]:
    """Yield rows whose observation is the network's weight and whose reward is epsilon."""
    count = 0
    while True:
        count += 1
        yield _row(float(network.weight.detach()), float(epsilon()[0]), count)


def drawn_steps(network: nn.Linear, epsilon: Callable[[], Array]) -> Iterator[StepRow]:
    """Yield rows whose observation is drawn by PyTorch."""
    while True:
        yield _row(float(torch.rand(())), 0.0, 0)


def failing_steps(network: nn.Linear, epsilon: Callable[[], Array]) -> Iterator[StepRow]:
    """Yield a row and fail."""
    yield _row(0.0, 0.0, 0)
    raise ValueError("the road\nends here")


def dying_steps(network: nn.Linear, epsilon: Callable[[], Array]) -> Iterator[StepRow]:
    """End the process."""
    raise SystemExit(3)


def _row(observation: float, reward: float, action: int) -> StepRow:
    def of(number: Any, kind: str) -> Array:
        return np.full((1, 1), number, kind)

    no = of(False, "bool")
    column = of(observation, "float32")
    row = (column, of(action, "int64"), of(reward, "float32"), no, no, column, ~no)
    return StepRow(*row)
