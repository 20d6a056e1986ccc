"""Learning from rewards beside a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.functional.distillation import MatchKind
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.match import OF_VALUES, Match
from lit_mtdqn.objectives.taught import Taught
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import Prediction, Schedule, TaskInfos, Transition, require


class Guidance(Taught):
    """Draws a network that learns from rewards to what teachers say, less and less.

    Adds `weight * distance` to each task's temporal-difference loss. On a schedule to 0 that is
    kickstarting; with `by_gap` the weight falls with what the task lacks to its teacher, as in
    QDagger, and is gone when it is reached. A constant weight holds a student below a teacher that
    it could beat. Tasks without a teacher learn from rewards alone. Teachers are loaded when a fit
    starts and are no part of checkpoints.

    A task with a teacher that does not learn here, such as an earlier run's, has no observations of
    its own. Its teacher is asked where the learning tasks lead, and its head goes on saying there
    what it said: learning without forgetting, balanced with the task whose observations they are.
    Each such task costs an update a forward pass more. A constant weight suits it. In YAML, for an
    earlier task `first` of the run that `WeightTransfer` starts from, with `learns: false`:

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
            task, with scores as `TaskSpec.score_range` or success tells them: 0 as a random policy.
        teacher_scores: The teachers' scores by task, above 0; those not named have 1.
        kind: The distance, one that keeps the student's outputs values: `value_kl`, `mse` or
            `softened_mse`.
        temperature: As of `Match`.
        relative: As of `Match`.

    Raises:
        ValueError: If a value is out of range, or when a fit starts if a teacher does not fit.

    References:
        Schmitt et al. 2018, "Kickstarting Deep Reinforcement Learning",
        https://arxiv.org/abs/1803.03835; Agarwal et al. 2022, "Reincarnating Reinforcement
        Learning", section 4.2, https://arxiv.org/abs/2206.01626; Li and Hoiem 2016, "Learning
        without Forgetting", equation 2, https://arxiv.org/abs/1606.09282.
    """

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
        self._teacher_scores = [scores.get(name, 1.0) for name in self.names]
        taught = [place for place, info in enumerate(self.infos) if info.name in teachers]
        self._earlier = [place for place in taught if not self.infos[place].learns]

    def prepare(self, learner: Any) -> None:
        """Load the teachers, whose outputs must be values."""
        super().prepare(learner)
        self._teachers.require_values(f"`Guidance.kind` {self.match.kind}")

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return the weighted distances, [S, B]; 0 for tasks without a teacher."""
        term = self._term(batch, td.prediction)
        for number in self._earlier:
            # What the states forbid, they forbid to the learning task.
            other = batch._replace(task=torch.full_like(batch.task, number), extra={})
            term = term + self._term(other, td.predict(other.observation, other.task))
        return {"guidance": term}

    def _term(self, batch: Transition, prediction: Prediction) -> Tensor:
        teacher = self._teachers.action_values(batch.observation, batch.task)
        in_unit = self.learner.values_in_unit(teacher, batch.task)
        distance = self.match.distance(batch, prediction, in_unit, self.updates)
        weight = self.weights(batch.task).unsqueeze(-1)
        return weight * distance * batch.weight

    def weights(self, task: Tensor) -> Tensor:
        """Return the weight of each row group's task, [S], or what gaps leave of it."""
        weights = super().weights(task)
        if not self.by_gap:
            return weights
        scores = self.learner.source.scores
        gaps = [
            max(1.0 - scores.score(self.names[number]) / self._teacher_scores[number], 0.0)
            for number in task.tolist()
        ]
        return weights * torch.tensor(gaps, device=task.device)
