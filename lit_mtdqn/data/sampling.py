"""Which learning slot fills which row group of which update."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class TaskSampler(ABC):
    """Base of all task samplers."""

    @abstractmethod
    def draw(self, updates: int, slots: int, generator: torch.Generator) -> Tensor:
        """Return the slot of every row group, integers [K, S] below `slots`.

        Args:
            updates: K, the updates of the next phase.
            slots: Number of learning slots.
            generator: Source of all draws.
        """

    def on_scores(self, scores: dict[str, float]) -> None:  # noqa: B027  a hook
        """Take what the learner found out about the tasks; ignored unless overridden."""


class EveryTask(TaskSampler):
    """Gives every learning slot one row group of every update, in their order."""

    def draw(self, updates: int, slots: int, generator: torch.Generator) -> Tensor:
        """Return 0 .. slots-1 for every update."""
        return torch.arange(slots).expand(updates, slots)
