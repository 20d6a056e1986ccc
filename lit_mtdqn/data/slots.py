"""Slots: what acts, what is learned from, and whose head it uses."""

from __future__ import annotations

from dataclasses import dataclass

from lit_mtdqn.replay import Replay
from lit_mtdqn.types import TaskSpec


@dataclass(frozen=True)
class Slot:
    """A task with its replay.

    Source data, rehearsal and held-out tasks are slots that do not act or do not learn.

    Attributes:
        task: Name of the task.
        index: Place among all tasks.
        spec: The task.
        replay: Its transitions.
    """

    task: str
    index: int
    spec: TaskSpec
    replay: Replay

    @property
    def acts(self) -> bool:
        """Whether it is played during training."""
        return is_acting(self.spec)

    @property
    def learns(self) -> bool:
        """Whether its transitions are learned from."""
        return self.spec.learns


def is_acting(spec: TaskSpec) -> bool:
    """Return whether a task is played during training: not if it brings a stored replay."""
    return spec.acts and spec.replay is None
