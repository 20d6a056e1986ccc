"""What is known of how well each task is learned, in numbers that unlike tasks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lit_mtdqn.types.checks import require

ScoreKind = Literal["gap", "progress", "td_error"]
SCORE_KINDS = ("gap", "progress", "td_error")
# Shares of a new number in the moving averages: over about 10 and 50 reports, one a phase.
FAST = 0.1
SLOW = 0.02


@dataclass
class _Average:
    """Exponential moving mean and variance; plain ones of the first `1 / rate` numbers."""

    rate: float
    mean: float = 0.0
    variance: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        rate = max(self.rate, 1.0 / self.count)
        step = value - self.mean
        self.mean += rate * step
        self.variance = (1.0 - rate) * (self.variance + rate * step * step)


class _Record:
    """The numbers of one task."""

    def __init__(self) -> None:
        self.score: float | None = None
        self.td_error: float | None = None
        self.fast = _Average(FAST)
        self.slow = _Average(SLOW)
        self.errors = _Average(SLOW)


class TaskScores:
    """The one place where each task's success, progress and error are kept.

    A task of which nothing is known yet has score 0, progress 0 and surprise 0.

    Args:
        tasks: Names of all tasks.
    """

    def __init__(self, tasks: Iterable[str]) -> None:
        self._records = {task: _Record() for task in tasks}

    def add_score(self, task: str, score: float) -> None:
        """Take a task's latest score: 0 as a random policy, 1 as the reference.

        Raises:
            ValueError: If the task is unknown.
        """
        record = self._record(task)
        record.score = score
        record.fast.add(score)
        record.slow.add(score)

    def add_td_error(self, task: str, td_error: float) -> None:
        """Take a task's mean absolute TD error in the latest phase that trained it.

        Raises:
            ValueError: If the task is unknown.
        """
        record = self._record(task)
        record.td_error = td_error
        record.errors.add(td_error)

    def score(self, task: str) -> float:
        """Return the latest score."""
        return self._record(task).score or 0.0

    def gap(self, task: str) -> float:
        """Return what the score lacks to the reference's 1; below 0 where it is beaten."""
        return 1.0 - self.score(task)

    def progress(self, task: str) -> float:
        """Return a fast moving average of the score minus a slow one; below 0 in forgetting."""
        record = self._record(task)
        return record.fast.mean - record.slow.mean

    def td_error(self, task: str) -> float:
        """Return the latest mean absolute TD error, in the task's own unit of reward."""
        return self._record(task).td_error or 0.0

    def surprise(self, task: str) -> float:
        """Return the latest TD error in standard deviations from the task's own moving mean.

        Unlike the error itself it does not depend on the scale of the task's rewards.
        """
        record = self._record(task)
        if record.td_error is None or record.errors.variance <= 0.0:
            return 0.0
        return float((record.td_error - record.errors.mean) / record.errors.variance**0.5)

    def values(self, kind: ScoreKind, tasks: Sequence[str]) -> list[float]:
        """Return what speaks for training each of some tasks.

        Args:
            kind: `gap` to the reference; size of the `progress`, whether learning or forgetting;
                or `td_error`, the surprise.
            tasks: Names.
        """
        match kind:
            case "gap":
                return [self.gap(task) for task in tasks]
            case "progress":
                return [abs(self.progress(task)) for task in tasks]
            case "td_error":
                return [self.surprise(task) for task in tasks]
            case _:
                raise ValueError(f"`score` must be one of {', '.join(SCORE_KINDS)}. Got {kind!r}.")

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers by task, as checkpoints keep them."""
        return {
            task: {
                "score": record.score,
                "td_error": record.td_error,
                **{name: asdict(getattr(record, name)) for name in ("fast", "slow", "errors")},
            }
            for task, record in self._records.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with saved numbers; tasks that they do not name start anew."""
        for task in self._records:
            record = self._records[task] = _Record()
            saved = state.get(task)
            if saved is None:
                continue
            record.score, record.td_error = saved["score"], saved["td_error"]
            for name in ("fast", "slow", "errors"):
                setattr(record, name, _Average(**saved[name]))

    def _record(self, task: str) -> _Record:
        require(task in self._records, "task", f"be one of {list(self._records)}", task)
        return self._records[task]
