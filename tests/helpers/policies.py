"""Things that act in tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Values = Callable[[Tensor, Tensor], Tensor]


class Policy:
    """Acts by a function of the observation, and remembers what it was asked.

    Args:
        values: Returns values [S, N, A] of observations [S, N, *O] of tasks [S].
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self.asked: list[tuple[Tensor, Tensor]] = []

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return the values and remember the question."""
        self.asked.append((observation.clone(), task.clone()))
        return self._values(observation, task)


def constant(*values: float) -> Policy:
    """Return a policy whose values are the same everywhere."""
    row = torch.tensor(values)
    return Policy(lambda observation, _: row.expand(*observation.shape[:2], len(values)))


def never_asked(observation: Tensor, task: Tensor) -> Tensor:
    """Fail: random actions need no values."""
    raise AssertionError("random actions need no values")
