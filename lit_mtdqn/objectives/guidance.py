"""Learning from rewards beside a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_mtdqn.functional.distillation import MatchKind, action_variance
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.match import OF_VALUES, Match
from lit_mtdqn.objectives.taught import Taught
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import Prediction, Schedule, TaskInfos, Transition, require, value_at


class Guidance(Taught):
    """Draws a network that learns from rewards to what teachers say, less and less.

    Adds `weight * distance` to each task's temporal-difference loss. On a schedule to 0 that is
    kickstarting; with `by_gap` the weight falls with what the task lacks to its teacher, as in
    QDagger, and is gone when training episodes, which explore, are as good as its test. A constant
    weight holds a student below a teacher that it could beat. Tasks without a teacher learn from
    rewards alone. Teachers are loaded when a fit starts and are no part of checkpoints.

    A task with a teacher that does not learn here, such as an earlier run's, has no observations of
    its own. Its teacher is asked where the learning tasks lead, and its head goes on saying there
    what it said: learning without forgetting, balanced with the task whose observations they are.
    Each such task costs an update a forward pass more. A constant weight suits it. A squared
    distance is in the unit of what learns from rewards, that of its scale; such a task learns none,
    and its own is divided by how far the teacher's actions lie apart in the minibatch, as
    `action_variance` has it. In YAML, for an earlier task `first` of the run that `WeightTransfer`
    starts from, with `learns: false`:

        objectives:
        - class_path: lit_mtdqn.objectives.Guidance
          init_args: {teachers: {first: runs/first}, kind: mse}

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        teachers: Checkpoint or folder of a run by task.
        teacher_tasks: A teacher's name for a task, by the learner's, where a teacher of several
            tasks has another.
        weight: Factor on the distances, over updates, at least 0. Larger stays closer.
        by_gap: Whether the weight is multiplied by `max(1 - score / teacher's score, 0)` of each
            task, with scores as `TaskSpec.score_range` or success tells them: 0 as a random policy,
            and no more for one that is worse.
        teacher_scores: The teachers' scores by task, above 0. Others have that of the test in their
            run's report, or 1 where there is none; a teacher that is found no better than a random
            policy is not followed.
        kind: The distance, one that keeps the student's outputs values: `value_kl`, `mse` or
            `softened_mse`.
        temperature: As of `Match`.
        relative: As of `Match`.

    Raises:
        ValueError: If a value is out of range, or when a fit starts if a teacher does not fit, if
            scores are followed and a task has none, as one that is not played or not learned, or if
            the learner's scale weighs losses and the distance has no unit.

    References:
        Schmitt et al. 2018, "Kickstarting Deep Reinforcement Learning",
        https://arxiv.org/abs/1803.03835; Agarwal et al. 2022, "Reincarnating Reinforcement
        Learning", section 4.2, https://arxiv.org/abs/2206.01626; Li and Hoiem 2016, "Learning
        without Forgetting", equation 2, https://arxiv.org/abs/1606.09282.
    """

    needs_values = True

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        teachers: Mapping[str, str],
        teacher_tasks: Mapping[str, str] | None = None,
        weight: float | Schedule = 1.0,
        by_gap: bool = False,
        teacher_scores: Mapping[str, float] | None = None,
        kind: MatchKind = "value_kl",
        temperature: float | Schedule = 0.5,
        relative: bool = True,
    ) -> None:
        super().__init__(tasks, teachers, teacher_tasks, weight)
        self.names = [info.name for info in self.infos]
        known, of_values = set(self.names), ", ".join(OF_VALUES)
        require(kind in OF_VALUES, "Guidance.kind", f"be one of {of_values}", kind)
        scores = dict(teacher_scores or {})
        must = f"hold scores above 0 of tasks among {self.names}"
        are_scores = set(scores) <= known and all(score > 0.0 for score in scores.values())
        require(are_scores, "Guidance.teacher_scores", must, scores)
        self.match = Match(tasks, network, kind, temperature, relative)
        self.by_gap = by_gap
        self._told_scores, self._teacher_scores = scores, scores
        self._taught = [place for place, info in enumerate(self.infos) if info.name in teachers]
        self._learning = [place for place in self._taught if self.infos[place].learns]
        self._earlier = [place for place in self._taught if not self.infos[place].learns]

    def prepare(self, learner: Any) -> None:
        """Load the teachers, whose outputs must be values, and what they score."""
        super().prepare(learner)
        kind, scale = self.match.kind, learner.scale
        self._teachers.require_values(f"`Guidance.kind` {kind}")
        must = f"bring values to another unit, for `Guidance.kind` {kind}, which has none"
        weighs = scale is not None and scale.weighs_losses
        require(kind == "mse" or not weighs, "model.scale", must, type(scale).__name__)
        if self.by_gap:
            names = {number: self.names[number] for number in self._taught}
            followed = list(names.values())
            learner.source.require_scores(followed, "`Guidance.by_gap`", in_training=True)
            self._teacher_scores = {name: self._aim(number) for number, name in names.items()}
            told = "followed up to their scores, and not at all without one above 0"
            rank_zero_info(f"Teachers are {told}: {self._teacher_scores}")

    def _aim(self, number: int) -> float:
        """Return the score of a task's teacher, at which guidance ends."""
        name = self.names[number]
        score: float | None = self._told_scores.get(name, self._teachers.tested_score(number))
        return 1.0 if score is None else score

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return the weighted distances, [S, B]; 0 for tasks without a teacher."""
        term = torch.zeros_like(td.loss)
        for numbers, part in self._parts(batch):
            if any(self._weight(number) for number in numbers):
                is_own = part is batch
                said = td.prediction if is_own else td.predict(part.observation, part.task)
                distance, _ = self._compared(part, said, learns=is_own)
                weight = self.weights(part.task).unsqueeze(-1)
                term = term + weight * distance * batch.weight
        return {"guidance": term}

    @torch.no_grad()
    def batch_metrics(self, batch: Transition, prediction: Prediction) -> dict[str, Tensor]:
        """Return each taught task's distance, and in which share of rows both would act alike."""
        found: dict[str, Tensor] = {}
        for numbers, part in self._parts(batch):
            is_own = part is batch
            said = prediction if is_own else self.learner.network(part.observation, part.task)
            distance, teacher = self._compared(part, said, learns=is_own)
            agreed = self.match.agreement(part, said, teacher)
            for number in set(numbers) & set(part.task.tolist()):
                name, groups = self.names[number], part.task == number
                found[f"match/{name}"] = distance[groups].mean()
                found[f"agreement/{name}"] = agreed[groups].mean()
        return found

    def _parts(self, batch: Transition) -> Iterator[tuple[list[int], Transition]]:
        """Yield the batch as taught tasks see it, each with their numbers: its own and earlier."""
        if self._learning:
            yield self._learning, batch
        for number in self._earlier:
            # What the states forbid, they forbid to the learning task.
            task = torch.full_like(batch.task, number)
            yield [number], batch._replace(task=task, extra={})

    def _compared(
        self, batch: Transition, prediction: Prediction, *, learns: bool
    ) -> tuple[Tensor, Tensor]:
        """Return each row's distance, [S, B], and what the teachers say in the network's unit."""
        raw = self._teachers.action_values(batch.observation, batch.task)
        teacher: Tensor = self.learner.values_in_unit(raw, batch.task)
        distance = self.match.distance(batch, prediction, teacher, self.updates)
        if self.match.kind == "mse" and not learns:
            distance = distance / action_variance(teacher, self.match.mask(batch))
        return distance, teacher

    def weights(self, task: Tensor) -> Tensor:
        """Return the weight of each row group's task, [S], or what gaps leave of it."""
        by_task = [self._weight(number) for number in range(len(self.infos))]
        return torch.tensor(by_task, device=task.device)[task]

    def _weight(self, number: int) -> float:
        """Return the weight of a task, or what its gap leaves of it; 0 without a teacher."""
        if number not in self._taught:
            return 0.0
        weight = value_at(self.weight, self.updates)
        if not self.by_gap:
            return weight
        name = self.names[number]
        score: float = self.learner.source.scores.score(name)
        aim = self._teacher_scores[name]
        return weight * min(max(1.0 - score / aim, 0.0), 1.0) if aim > 0.0 else 0.0
