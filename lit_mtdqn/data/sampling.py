"""Which learning slot fills which row group of which update, and how much each task is played."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.data.turns import Turns
from lit_mtdqn.functional.shares import floored_softmax, gumbel_top_k
from lit_mtdqn.types import (
    SCORE_KINDS,
    Clock,
    Schedule,
    ScoreKind,
    TaskScores,
    require,
    value_at,
)

Steers = Literal["updates", "env_steps", "both"]


class TaskSampler(ABC):
    """Base of all task samplers."""

    def bind(  # noqa: B027  a hook
        self, learning: Sequence[str], acting: Sequence[str], scores: TaskScores, clock: Clock
    ) -> None:
        """Take the tasks and what is known of them; called once, before anything is drawn.

        Args:
            learning: Names of the learning slots, in order.
            acting: Names of the acting slots, in order.
            scores: What is known of every task, always up to date.
            clock: That of the run.
        """

    @property
    def needs_scores(self) -> bool:
        """Whether it reads normalised scores, which not every task has."""
        return False

    @abstractmethod
    def draw(self, updates: int, slots: int, generator: torch.Generator) -> Tensor:
        """Return the slot of every row group, integers [K, S] below `slots`.

        Args:
            updates: K, the updates of the next phase.
            slots: Number of learning slots.
            generator: Source of all draws.
        """

    def vector_steps(self, steps: int) -> list[int] | None:
        """Return how many vector steps each acting slot makes in the next phase.

        Args:
            steps: Vector steps of each slot, were all alike; the sum over slots must be kept.

        Returns:
            Counts in the order of the slots, or None if all are alike.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what cannot be recomputed, as plain numbers."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  a hook
        """Continue with a saved state."""


class EveryTask(TaskSampler):
    """Gives every learning slot one row group of every update, in their order."""

    def draw(self, updates: int, slots: int, generator: torch.Generator) -> Tensor:
        """Return 0 .. slots-1 for every update."""
        return torch.arange(slots).expand(updates, slots)


class SharedTasks(TaskSampler):
    """Base of samplers that give tasks shares, of the row groups or of the env steps or of both.

    Args:
        steers: What the shares rule: `updates`, the row groups of every update; `env_steps`, the
            vector steps of every phase, whose sum over tasks stays; or `both`. What they do not
            rule is shared evenly.

    Raises:
        ValueError: If `steers` is unknown.
    """

    def __init__(self, steers: Steers = "updates") -> None:
        kinds = ("updates", "env_steps", "both")
        require(steers in kinds, "steers", f"be one of {', '.join(kinds)}", steers)
        self.steers = steers
        self._acting: Sequence[str] = ()
        self._learning: Sequence[str] = ()
        self._scores = TaskScores(())
        self._clock = Clock()
        self._groups = Turns()
        self._steps = Turns()

    def bind(
        self, learning: Sequence[str], acting: Sequence[str], scores: TaskScores, clock: Clock
    ) -> None:
        """Take the tasks and what is known of them."""
        self._learning, self._acting = learning, acting
        self._scores, self._clock = scores, clock

    @abstractmethod
    def shares(self, tasks: Sequence[str]) -> Tensor:
        """Return the shares of some tasks now, [T], at least 0, of sum 1."""

    @abstractmethod
    def draw_groups(self, updates: int, generator: torch.Generator) -> Tensor:
        """Return the slot of every row group, [K, S], where shares rule them."""

    def draw(self, updates: int, slots: int, generator: torch.Generator) -> Tensor:
        """Return the slot of every row group."""
        if self.steers == "env_steps":
            return torch.arange(slots).expand(updates, slots)
        return self.draw_groups(updates, generator)

    def vector_steps(self, steps: int) -> list[int] | None:
        """Return counts that follow the shares exactly in the long run."""
        acting = self._acting
        if self.steers == "updates" or not acting:
            return None
        turns = self._steps.take(steps * len(acting), acting, self.shares(acting))
        counts: list[int] = np.bincount(turns, minlength=len(acting)).tolist()
        return counts

    def state_dict(self) -> dict[str, Any]:
        """Return what shares are still owed."""
        return {"groups": self._groups.state_dict(), "steps": self._steps.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with what shares are still owed."""
        self._groups.load_state_dict(state.get("groups", {}))
        self._steps.load_state_dict(state.get("steps", {}))


class FixedShares(SharedTasks):
    """Gives every task a fixed share, with no randomness: turns are taken as evenly as they can be.

    An update holds as many row groups as there are learning tasks; a task with a large share fills
    several of them, one with a small share none in some updates. A share may follow a schedule:
    the transitions of an earlier task, replayed beside those of a later one with its head
    (instance transfer), may begin with half of every update and fade.

        data:
          tasks:
            new: {env: CartPole-v1}
            old: {env: CartPole-v1, head: new, replay: runs/old/replay/rank_0/old, evaluates: false}
          sampler:
            class_path: lit_mtdqn.data.FixedShares
            init_args:
              shares:
                new: 1.0
                old:
                  class_path: lit_mtdqn.types.Linear
                  init_args: {start: 1.0, end: 0.0, duration: 5000}

    Args:
        shares: Share of each task, at least 0, or a schedule of it over updates, which is asked
            once a phase; only the ratios of shares count. A task with share 0 is left out.
        steers: What the shares rule: `updates`, `env_steps` or `both`.

    Raises:
        ValueError: If a value is out of range or a task is not named; when a phase begins, if no
            share is above 0.

    References:
        Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data", section 4.1
        (equal shares of old and new transitions), https://arxiv.org/abs/2302.02948.
    """

    def __init__(self, shares: Mapping[str, float | Schedule], steers: Steers = "updates") -> None:
        super().__init__(steers)
        must = "be at least 0 for every task, and above 0 for one"
        _require_shares([value_at(share, 0) for share in shares.values()], must, shares)
        self._shares = dict(shares)

    def bind(
        self, learning: Sequence[str], acting: Sequence[str], scores: TaskScores, clock: Clock
    ) -> None:
        """Take the tasks, each of which must have a share."""
        super().bind(learning, acting, scores, clock)
        ruled = {
            *(learning if self.steers != "env_steps" else ()),
            *(acting if self.steers != "updates" else ()),
        }
        given = sorted(self._shares)
        require(set(given) == ruled, "shares", f"name exactly the tasks {sorted(ruled)}", given)

    def shares(self, tasks: Sequence[str]) -> Tensor:
        """Return the shares of some tasks now, of sum 1."""
        updates = self._clock.updates
        now = [value_at(self._shares[task], updates) for task in tasks]
        must = f"be at least 0, and above 0 for one of {list(tasks)}, after {updates} updates"
        _require_shares(now, must, now)
        shares = torch.tensor(now, dtype=torch.float64)
        return shares / shares.sum()

    def draw_groups(self, updates: int, generator: torch.Generator) -> Tensor:
        """Return turns, dealt evenly over groups, updates and phases."""
        tasks = self._learning
        turns = self._groups.take(updates * len(tasks), tasks, self.shares(tasks))
        return torch.from_numpy(turns).view(updates, len(tasks))


def _require_shares(shares: Sequence[float], must: str, got: object) -> None:
    valid = min(shares, default=0.0) >= 0.0 and sum(shares) > 0.0
    require(valid, "shares", must, got)


class ScoredTasks(SharedTasks):
    """Base of samplers whose shares are `floor / T + (1 - floor) softmax(score / temperature)`.

    Args:
        score: What speaks for a task. `gap`: how far its normalised score is below 1; `progress`:
            how fast its score rises or falls; `td_error`: how much larger its TD error is than
            usual, in standard deviations.
        temperature: Above 0. Larger is closer to equal shares.
        floor: Share that all tasks divide evenly, in [0, 1]. Larger is safer for tasks that are
            hard or done; 1 is uniform.
        steers: What the shares rule: `updates`, `env_steps` or `both`.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        score: ScoreKind = "gap",
        temperature: float = 1.0,
        floor: float = 0.5,
        steers: Steers = "updates",
    ) -> None:
        super().__init__(steers)
        require(score in SCORE_KINDS, "score", f"be one of {', '.join(SCORE_KINDS)}", score)
        require(temperature > 0.0, "temperature", "be above 0", temperature)
        require(0.0 <= floor <= 1.0, "floor", "lie in [0, 1]", floor)
        self.score = score
        self.temperature = temperature
        self.floor = floor

    @property
    def needs_scores(self) -> bool:
        """Whether gaps or progress are read."""
        return self.score != "td_error"

    def shares(self, tasks: Sequence[str]) -> Tensor:
        """Return the shares that follow from the tasks' present scores."""
        values = torch.tensor(self._scores.values(self.score, tasks), dtype=torch.float64)
        return floored_softmax(values, self.temperature, self.floor)


class SoftmaxTasks(ScoredTasks):
    """Draws the task of every row group by a softmax over scores, with a floor.

    An update holds as many row groups as there are learning tasks; several may be of one task.

    Args:
        score: What speaks for a task. `gap`: how far its normalised score is below 1; `progress`:
            how fast its score rises or falls; `td_error`: how much larger its TD error is than
            usual, in standard deviations.
        temperature: Above 0. Larger is closer to equal shares.
        floor: Share that all tasks divide evenly, in [0, 1]; no task is drawn less often than
            `floor / T`. Larger is safer for tasks that are hard or done; 1 is uniform.
        steers: What the shares rule: `updates`, `env_steps` or `both`.

    Raises:
        ValueError: If a value is out of range.

    References:
        Sharma et al. 2018, "Learning to Multi-Task by Active Sampling",
        https://arxiv.org/abs/1702.06053; Matiisen et al. 2017, "Teacher-Student Curriculum
        Learning", https://arxiv.org/abs/1707.00183.
    """

    def draw_groups(self, updates: int, generator: torch.Generator) -> Tensor:
        """Return independent draws."""
        slots = len(self._learning)
        shares = self.shares(self._learning)
        groups = torch.multinomial(shares, updates * slots, replacement=True, generator=generator)
        return groups.view(updates, slots)


class GumbelTopK(ScoredTasks):
    """Draws k unlike tasks for every update, by a softmax over scores with a floor.

    Batches hold k row groups instead of one per task, so an update costs less.

    Args:
        k: Tasks per update, at least 1; with fewer learning tasks all of them.
        score: What speaks for a task. `gap`: how far its normalised score is below 1; `progress`:
            how fast its score rises or falls; `td_error`: how much larger its TD error is than
            usual, in standard deviations.
        temperature: Above 0. Larger is closer to equal shares.
        floor: Share that all tasks divide evenly, in [0, 1]; no task is drawn less often than in
            `floor / T` of the updates. Larger is safer for tasks that are hard or done; 1 is
            uniform.
        steers: What the shares rule: `updates`, `env_steps` or `both`.

    Raises:
        ValueError: If a value is out of range.

    References:
        Kool et al. 2019, "Stochastic Beams and Where to Find Them",
        https://arxiv.org/abs/1903.06059.
    """

    def __init__(
        self,
        k: int,
        score: ScoreKind = "gap",
        temperature: float = 1.0,
        floor: float = 0.5,
        steers: Steers = "updates",
    ) -> None:
        super().__init__(score, temperature, floor, steers)
        require(k >= 1, "k", "be at least 1", k)
        self.k = k

    def draw_groups(self, updates: int, generator: torch.Generator) -> Tensor:
        """Return draws without replacement, independent between updates."""
        shares = self.shares(self._learning)
        return gumbel_top_k(shares, min(self.k, len(shares)), updates, generator)
