"""Turns dealt by shares, without randomness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor


class Turns:
    """Deals turns to tasks in proportion to shares: after any number of turns, none is far behind.

    Every turn adds its share to what each task is owed; the task that is owed most takes the turn
    and pays 1 for it (smooth weighted round-robin).
    """

    def __init__(self) -> None:
        self._owed: dict[str, float] = {}

    def take(self, turns: int, tasks: Sequence[str], shares: Tensor) -> np.ndarray:
        """Return which task takes each of the next turns, integers [turns].

        Args:
            turns: Number of turns.
            tasks: Names, [T].
            shares: Their shares, [T], of sum 1.
        """
        owed = np.array([self._owed.get(task, 0.0) for task in tasks])
        share = shares.numpy()
        taken = np.empty(turns, np.int64)
        for turn in range(turns):
            owed += share
            taken[turn] = owed.argmax()
            owed[taken[turn]] -= 1.0
        self._owed = dict(zip(tasks, owed.tolist(), strict=True))
        return taken

    def state_dict(self) -> dict[str, float]:
        """Return what each task is owed."""
        return dict(self._owed)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue with what each task is owed."""
        self._owed = dict(state)
