"""Students of networks that have learned already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.algorithms.base import Parameters
from lit_mtdqn.algorithms.factories import as_factory
from lit_mtdqn.algorithms.multitask import MultiTaskDQN
from lit_mtdqn.algorithms.optimizers import Adam
from lit_mtdqn.algorithms.teachers import Teachers, TeacherSources
from lit_mtdqn.balancing import Balancer
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives import Match, Objective, TDLoss
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import Losses, Prediction, Schedule, TaskInfos, Transition, require, value_at


class PolicyDistillation(MultiTaskDQN):
    """One network learns to act as its teachers do, on one task or many.

    Teachers are asked for their values at every sampled observation, and never for rewards. They
    may have learned one task each or several, see observations of other sizes and be of any shape.
    They are loaded when a fit starts and are no part of the student: its checkpoints need none.

    Args:
        tasks: The tasks, as `RolloutDataModule.task_infos` has them; linked on the command line.
        teachers: Checkpoint or folder of a run for each task that learns; several tasks may name
            the same. In Python `use_teachers` takes anything that has values instead.
        teacher_tasks: A teacher's name for a task, by the student's, where a teacher of several
            tasks has another.
        network: Makes the student's network from the tasks.
        match: Makes the distance to the teachers, from the tasks and the network.
        balancer: Makes the way in which tasks share one update; None weighs their distances by
            `TaskSpec.weight` alone.
        objectives: Make auxiliary objectives, from the tasks and the network.
        optimizer: Makes the optimiser from the parameters.
        learning_rate_schedule: Factor on the learning rate over updates; None keeps it.
        max_grad_norm: Norm to which the gradient of all parameters together is clipped; None does
            not clip.
        scale: Makes what brings the teachers' values to one scale, for value students; None keeps
            raw values.
        teacher_share: Share of env steps in which the teacher acts, over updates, in [0, 1]. 0
            shows the student where its own actions lead, which long episodes need; 1 stays where
            the teacher would.

    Raises:
        ValueError: If a value is out of range, or when a fit starts if a teacher does not fit.

    References:
        Rusu et al. 2015, "Policy Distillation", https://arxiv.org/abs/1511.06295; Ross et al. 2011,
        "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning",
        https://arxiv.org/abs/1011.0686 (who acts).
    """

    loss_name = "match"

    def __init__(
        self,
        tasks: TaskInfos,
        teachers: Mapping[str, str] | None = None,
        teacher_tasks: Mapping[str, str] | None = None,
        network: Callable[[TaskInfos], QNetwork] = QNetwork,
        match: Callable[[TaskInfos, QNetwork], Match] = Match,
        balancer: Callable[[TaskInfos, QNetwork], Balancer] | None = None,
        objectives: Sequence[Callable[[TaskInfos, QNetwork], Objective]] = (),
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer] = Adam,
        learning_rate_schedule: Schedule | None = None,
        max_grad_norm: float | None = 10.0,
        scale: Callable[[TaskInfos], Scale] | None = None,
        teacher_share: float | Schedule = 0.0,
    ) -> None:
        super().__init__(
            tasks,
            network,
            balancer=balancer,
            objectives=objectives,
            optimizer=optimizer,
            learning_rate_schedule=learning_rate_schedule,
            max_grad_norm=max_grad_norm,
            scale=scale,
        )
        self.match: Match = as_factory(match)(self.tasks, self.network)
        must = "not follow the targets of temporal differences, of which there are none"
        follows = self.scale is not None and self.scale.follows_targets
        require(not follows, "model.scale", must, type(self.scale).__name__)
        must = "be null for a policy student, whose outputs are no values"
        is_value = self.match.makes_values or self.scale is None
        require(is_value, "model.scale", must, type(self.scale).__name__)
        needing = [type(objective).__name__ for objective in self.objectives if _needs(objective)]
        must = "need no target of temporal differences, of which there are none"
        require(not needing, "model.objectives", must, needing)
        is_share = isinstance(teacher_share, Schedule) or 0.0 <= teacher_share <= 1.0
        require(is_share, "teacher_share", "lie in [0, 1]", teacher_share)
        self.teacher_share = teacher_share
        self._sources: TeacherSources = dict(teachers or {})
        self._teacher_tasks = dict(teacher_tasks or {})
        self._teachers: Teachers | None = None

    def use_teachers(self, teachers: TeacherSources) -> None:
        """Learn from these teachers instead, of which the student's checkpoints know nothing.

        Args:
            teachers: By task: a checkpoint, the folder of a run, or an object whose
                `action_values(observation [S, N, *O], task [S])` returns raw values [S, N, A], with
                the student's observations, task numbers and padded actions.
        """
        self._sources = dict(teachers)

    def on_fit_start(self) -> None:
        """Load the teachers."""
        super().on_fit_start()
        learning = [info.name for info in self.tasks if info.learns]
        missing = [name for name in learning if name not in self._sources]
        require(not missing, "teachers", f"name all tasks that learn, {learning}", missing)
        self._teachers = self.load_teachers(self._sources, self._teacher_tasks)

    def losses(
        self,
        batch: Transition,
        parameters: Parameters | None = None,
        target: Tensor | None = None,
    ) -> Losses:
        """Return the distances to the teachers, and auxiliary losses."""
        predict = self._predictor(parameters)
        prediction = predict(batch.observation, batch.task)
        teacher = self.teacher_values(batch) if target is None else target
        distance = self.match.distance(batch, prediction, teacher, self._clock.updates)
        td = TDLoss(distance, distance.detach(), prediction, teacher, predict)
        return Losses(td.loss, td.error, self.auxiliary_losses(batch, td), {}, teacher)

    def batch_metrics(self, batch: Transition, prediction: Prediction) -> dict[str, Tensor]:
        """Return in which share of a minibatch student and teacher would act alike, by task."""
        agreed = self.match.agreement(batch, prediction, self.teacher_values(batch))
        return {
            f"agreement/{self.tasks[number].name}": agreed[batch.task == number].mean()
            for number in sorted(set(batch.task.tolist()))
        }

    def raw_errors(self, errors: Tensor, task: Tensor) -> Tensor:
        """Return the distances as they are: they have no unit of rewards."""
        return errors

    def teacher_values(self, batch: Transition) -> Tensor:
        """Return what the teachers say at the observations of a minibatch, in the student's unit.

        Returns:
            [S, B, A].
        """
        assert self._teachers is not None
        values = self._teachers.action_values(batch.observation, batch.task)
        return self.values_in_unit(values, batch.task)

    def exploring_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return the values by which training acts: the student's, a teacher's or now and then one.

        Tasks without a teacher are the student's.
        """
        values = super().exploring_values(observation, task)
        share = value_at(self.teacher_share, self._clock.updates)
        if share == 0.0 or self._teachers is None:
            return values
        taught = self._teachers.knows(task)
        groups = taught.nonzero().flatten()
        if len(groups) == 0:
            return values
        device = self.device
        asked = observation[groups].to(device), task[groups].to(device)
        theirs = self._teachers.action_values(*asked)
        chosen = torch.rand(theirs.shape[:2], device=device) < share
        values[groups] = torch.where(chosen.unsqueeze(-1), theirs, values[groups])
        return values


def _needs(objective: object) -> bool:
    return isinstance(objective, Objective) and objective.needs_target
