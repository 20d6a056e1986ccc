"""What objectives with teachers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.objectives.base import Objective
from lit_mtdqn.types import Schedule, TaskInfos, as_task_infos, bounds_of, require, value_at


class Taught(Objective):
    """Base of objectives that learn from teachers, with a weight.

    Teachers are loaded when a fit starts and are no part of checkpoints.

    Args:
        tasks: The tasks.
        teachers: Checkpoint or folder of a run by task; None takes the learner's own teachers.
        teacher_tasks: A teacher's name for a task, by the learner's.
        weight: Factor on the terms, over updates, at least 0.

    Raises:
        ValueError: If `weight` is out of range or there are no teachers, or when a fit starts
            if a teacher does not fit.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        teachers: Mapping[str, str] | None,
        teacher_tasks: Mapping[str, str] | None,
        weight: float | Schedule,
    ) -> None:
        super().__init__()
        self.infos = as_task_infos(tasks)
        name = type(self).__name__
        require(bounds_of(weight)[0] >= 0.0, f"{name}.weight", "be at least 0 throughout", weight)
        names_some = teachers is None or len(teachers) >= 1
        require(names_some, f"{name}.teachers", "name at least one teacher", teachers)
        self.weight = weight
        self._given = None if teachers is None else dict(teachers), dict(teacher_tasks or {})
        # In a list, lest the learner be taken for a part of this module.
        self._learner: list[Any] = []
        self._teachers: Any = None

    def prepare(self, learner: Any) -> None:
        """Load the teachers."""
        self._learner = [learner]
        self._teachers = learner.load_teachers(*self._given)

    def bind(self, learner: Any) -> None:
        """Move the teachers to the learner's device."""
        self._teachers.to(learner.device)

    @property
    def learner(self) -> Any:
        """What learns."""
        return self._learner[0]

    @property
    def updates(self) -> int:
        """Updates made so far."""
        count: int = self.learner.source.clock.updates
        return count

    def weights(self, task: Tensor) -> Tensor:
        """Return the weight of each row group's task, [S]; 0 for tasks without a teacher."""
        knows: Tensor = self._teachers.knows(task)
        return value_at(self.weight, self.updates) * knows.to(task.device, torch.float32)
