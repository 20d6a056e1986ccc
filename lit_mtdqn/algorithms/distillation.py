"""Students of networks that have learned already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
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
from lit_mtdqn.rollout import Boltzmann
from lit_mtdqn.rollout.seeding import training_seed
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import (
    Losses,
    Prediction,
    Schedule,
    TaskInfos,
    Transition,
    bounds_of,
    require,
    value_at,
)

# What labels are called in `Transition.extra`.
LABEL = "teacher_values"


class PolicyDistillation(MultiTaskDQN):
    """One network learns to act as its teachers do, on one task or many.

    Teachers are asked for their values at every sampled observation, and never for rewards. They
    may have learned one task each or several and be of any shape. They are loaded when a fit starts
    and are no part of the student: its checkpoints need none.

    Args:
        tasks: The tasks, as `RolloutDataModule.task_infos` has them; linked on the command line.
        teachers: Checkpoint or folder of a run for each task that learns; several tasks may name
            the same. A teacher of one task teaches it by any name. Students of values have
            teachers of values; others may have students of policies as teachers, too, whose
            policies are taken as they are. In Python `use_teachers` takes anything that has values
            instead.
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
            raw values. `ReturnScaling`, which weighs losses, is for squared distances alone.
        teacher_share: Share of env steps in which the teacher acts, over updates, in [0, 1]. 0
            shows the student where its own actions lead, which long episodes need; 1 stays where
            the teacher would. Shares between do not go with `boltzmann` for students of policies.
        labels: When teachers are asked: of each minibatch (`sampled`), or once of each env step
            (`stored` with its transition). That saves time where env steps are replayed more than
            once and the teacher is large, and takes 4 bytes per action and transition; what a
            teacher said that goes on learning grows old.

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
        labels: Literal["sampled", "stored"] = "sampled",
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
        must = f"bring values to another unit, for `match.kind` {self.match.kind}, which has none"
        weighs = self.scale is not None and self.scale.weighs_losses
        require(
            not weighs or self.match.kind == "mse", "model.scale", must, type(self.scale).__name__
        )
        must = "need no target of temporal differences, of which there are none"
        self._require_of_objectives("needs_target", must)
        if not self.match.makes_values:
            must = f"need no values, of which a student of `match.kind` {self.match.kind} has none"
            self._require_of_objectives("needs_values", must)
        low, high = bounds_of(teacher_share)
        require(0.0 <= low <= high <= 1.0, "teacher_share", "lie in [0, 1]", teacher_share)
        self.teacher_share = teacher_share
        require(labels in ("sampled", "stored"), "labels", "be sampled or stored", labels)
        self.stores_labels = labels == "stored"
        self._sources: TeacherSources = dict(teachers or {})
        self._teacher_tasks = dict(teacher_tasks or {})
        self._teachers: Teachers | None = None

    def _require_of_objectives(self, need: str, must: str) -> None:
        needing = [type(part).__name__ for part in self.objectives if getattr(part, need)]
        require(not needing, "model.objectives", must, needing)

    def use_teachers(self, teachers: TeacherSources) -> None:
        """Learn from these teachers instead, of which the student's checkpoints know nothing.

        Args:
            teachers: By task: a checkpoint, the folder of a run, or an object whose
                `action_values(observation [S, N, *O], task [S])` returns raw values [S, N, A], with
                the student's observations, task numbers and padded actions. It may go on learning.
                It takes them from the student's device, whatever its own is.
                Matches of features also ask it for `layers`, as `ShowsLayers` has them.
        """
        self._sources = dict(teachers)

    @property
    def predicts_values(self) -> bool:
        """Whether the student's outputs are values."""
        return self.match.makes_values

    def setup(self, stage: str) -> None:
        """Load the teachers, before objectives ask for them."""
        if stage == "fit":
            self._require_one_unit_of_actors()
            self._load_own_teachers()
        super().setup(stage)

    def _require_one_unit_of_actors(self) -> None:
        """Refuse draws among logits of the student and values of teachers at one temperature."""
        low, high = bounds_of(self.teacher_share)
        mixes = high > 0.0 and low < 1.0 and not self.predicts_values
        exploration = self.source.exploration
        must = "be null where teachers act in a share of a policy student's steps, in another unit"
        can = not (mixes and isinstance(exploration, Boltzmann))
        require(can, "data.boltzmann", must, type(exploration).__name__)

    def _load_own_teachers(self) -> None:
        learning = [info.name for info in self.tasks if info.learns]
        missing = [name for name in learning if name not in self._sources]
        must = f"name all tasks that learn, {learning}"
        require(not missing, "teachers", must, sorted(self._sources))
        self._teachers = self.load_teachers(self._sources, self._teacher_tasks)
        if self.predicts_values:
            self._teachers.require_values(f"`match.kind` {self.match.kind}")

    def on_fit_start(self) -> None:
        """Move the teachers to the student's device."""
        super().on_fit_start()
        assert self._teachers is not None
        self._teachers.to(self.device)

    def load_teachers(
        self, sources: TeacherSources | None, names: Mapping[str, str] | None = None
    ) -> Teachers:
        """Return teachers, its own for None."""
        own = self._teachers
        return own if sources is None and own is not None else super().load_teachers(sources, names)

    @property
    def label_sizes(self) -> dict[str, int]:
        """Count the numbers that are stored with each transition, by name."""
        return {LABEL: self.network.action_mask.shape[-1]} if self.stores_labels else {}

    def labels_of(self, observation: Tensor, task: Tensor) -> dict[str, Tensor]:
        """Return what the teachers say of observations [S, N, *O] of tasks [S], raw [S, N, A]."""
        return {LABEL: self._said(observation.to(self.device), task.to(self.device))}

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
        assert self._teachers is not None
        is_policy = self._teachers.says_policy(batch.task)
        updates = self._clock.updates
        distance = self.match.distance(batch, prediction, teacher, updates, is_policy)
        td = TDLoss(distance, distance.detach(), prediction, teacher, predict)
        return Losses(td.loss, td.error, self.auxiliary_losses(batch, td), {}, teacher)

    def batch_metrics(self, batch: Transition, prediction: Prediction) -> dict[str, Tensor]:
        """Return in which share of a minibatch student and teacher would act alike, by task."""
        agreed = self.match.agreement(batch, prediction, self.teacher_values(batch))
        return super().batch_metrics(batch, prediction) | {
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
        stored = self.stores_labels
        values = batch.extra[LABEL] if stored else self._said(batch.observation, batch.task)
        return self.values_in_unit(values, batch.task)

    def _said(self, observation: Tensor, task: Tensor) -> Tensor:
        assert self._teachers is not None
        return self._teachers.action_values(observation, task)

    @property
    def acting_network(self) -> QNetwork | None:
        """The student, where no teacher acts."""
        return self.network if bounds_of(self.teacher_share)[1] == 0.0 else None

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
        theirs = self._said(observation[groups].to(device), task[groups].to(device))
        drawn = [self._draws(number, theirs.shape[1]) for number in task[groups].tolist()]
        chosen = torch.from_numpy(np.stack(drawn)).to(device) < share
        values[groups] = torch.where(chosen.unsqueeze(-1), theirs, values[groups])
        return values

    def _draws(self, number: int, num_envs: int) -> np.ndarray:
        """Return uniform numbers for the next step of a task, [N].

        They follow from the run's seed, the rank, the task's name and its clock: other tasks do not
        change them, and a resumed run draws on.
        """
        name = self.tasks[number].name
        seed = training_seed(torch.initial_seed(), f"teacher {name}", self.global_rank)
        return np.random.default_rng([seed, self._clock.env_steps[name]]).random(num_envs)
