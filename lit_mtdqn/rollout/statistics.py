"""How training episodes went, counted from raw rewards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.types import StepRow

Array = np.ndarray
# Episodes that the rolling means cover.
WINDOW = 100


class RollingMean:
    """Mean of the last values, in constant time.

    Args:
        window: Number of values.
    """

    def __init__(self, window: int) -> None:
        self._values: deque[float] = deque(maxlen=window)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Take a value; the oldest leaves a full window."""
        if len(self._values) == self._values.maxlen:
            self._sum -= self._values[0]
        self._values.append(value)
        self._sum += value

    def state_dict(self) -> dict[str, Any]:
        """Return the values held, oldest first, and their sum, whose last bits depend on others."""
        return {"values": list(self._values), "sum": self._sum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved values; the newest of them where the window is smaller."""
        for value in state["values"]:
            self.add(value)
        if len(self._values) == len(state["values"]):
            self._sum = state["sum"]

    @property
    def count(self) -> int:
        """Number of values held."""
        return len(self._values)

    @property
    def sum(self) -> float:
        """Sum of the values held."""
        return self._sum


class EpisodeStatistics:
    """Rolling means over the last finished training episodes of each task.

    Episodes that a fault has cut off are no finished ones, and are counted apart.

    Args:
        tasks: Names, in the order of the rows' first axis.
        num_envs: N.
        reports_success: Whether each task says if an episode succeeded.
        window: Number of episodes.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        num_envs: int,
        reports_success: Sequence[bool],
        window: int = WINDOW,
    ) -> None:
        self.tasks = tuple(tasks)
        self.num_envs = num_envs
        self.episodes = dict.fromkeys(tasks, 0)
        self._return = np.zeros((len(tasks), num_envs))
        self._length = np.zeros((len(tasks), num_envs), np.int64)
        self._restarts = np.zeros(len(tasks), np.int64)
        self._window = window
        names = ("episode_return", "episode_length")
        self._finished = {
            f"rollout/{name}/{task}": RollingMean(window)
            for task, success in zip(tasks, reports_success, strict=True)
            for name in (*names, *(["success"] if success else []))
        }

    def add(self, row: StepRow) -> None:
        """Take a vector step of all tasks, arrays [S, N]."""
        self._return += row.reward
        self._length += row.valid
        ended = row.terminated | row.truncated
        if not ended.any():
            return
        cut = ended & ~row.valid
        self._restarts += cut.sum(1)
        for slot, env in zip(*np.nonzero(ended & ~cut), strict=True):
            self._finish(self.tasks[slot], slot, env, bool(row.extra["success"][slot, env]))
        self._return[ended] = 0.0
        self._length[ended] = 0

    def _finish(self, task: str, slot: int, env: int, success: bool) -> None:
        self.episodes[task] += 1
        self._take(task, float(self._return[slot, env]), float(self._length[slot, env]), success)

    def _take(self, task: str, episode_return: float, length: float, success: float) -> None:
        self._finished[f"rollout/episode_return/{task}"].add(episode_return)
        self._finished[f"rollout/episode_length/{task}"].add(length)
        if f"rollout/success/{task}" in self._finished:
            self._finished[f"rollout/success/{task}"].add(float(success))

    def metrics(self, sum_over_ranks: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Return the rolling means by metric name; tasks without a finished episode are absent.

        With them `rollout/restarts/<task>`, the number of restarts since this process began, of
        tasks that had any.

        Args:
            sum_over_ranks: Sums a tensor over ranks; None counts the episodes of this one alone.
        """
        rows = [(mean.sum, mean.count) for mean in self._finished.values()]
        rows += [(float(count), int(count > 0)) for count in self._restarts]
        sums = torch.tensor(rows, dtype=torch.float64).view(-1, 2)
        if sum_over_ranks is not None:
            sums = sum_over_ranks(sums)
        kept = len(self._finished)
        totals = zip(self._finished, sums[:kept].tolist(), strict=True)
        found = {name: total / count for name, (total, count) in totals if count}
        restarts = zip(self.tasks, sums[kept:, 0].tolist(), strict=True)
        return found | {f"rollout/restarts/{task}": count for task, count in restarts if count}

    def state_dict(self) -> dict[str, Any]:
        """Return the rolling means, by metric name."""
        return {name: mean.state_dict() for name, mean in self._finished.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved means; those that they do not name start anew."""
        for name in self._finished:
            mean = self._finished[name] = RollingMean(self._window)
            if name in state:
                mean.load_state_dict(state[name])

    def running(self) -> dict[str, Any]:
        """Return what is known of the running episodes."""
        return {"return": self._return, "length": self._length}

    def set_running(self, running: Mapping[str, Any], goes_on: Array) -> None:
        """Continue with running episodes.

        Args:
            running: What `running` has returned.
            goes_on: Which tasks' episodes go on, [S]; those of the others start anew.
        """
        self._return[:] = running["return"] * goes_on[:, None]
        self._length[:] = running["length"] * goes_on[:, None]
