"""How training episodes went, counted on the device that plays them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.rollout.statistics import WINDOW, EpisodeStatistics
from lit_mtdqn.types import StepRow


class DeviceStatistics(EpisodeStatistics):
    """Rolling means over the last finished episodes, which are told once per phase.

    Args:
        tasks: Names, in the order of the rows' first axis.
        num_envs: N.
        reports_success: Whether each task says if an episode succeeded.
        window: Number of episodes.
        device: Where rows are.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        num_envs: int,
        reports_success: Sequence[bool],
        window: int = WINDOW,
        *,
        device: torch.device,
    ) -> None:
        super().__init__(tasks, num_envs, reports_success, window)
        # Return and length of the running episodes.
        self._running = torch.zeros(2, len(tasks), num_envs, dtype=torch.float64, device=device)
        self._rows: list[Tensor] = []

    def add(self, row: StepRow) -> None:
        """Take a vector step of all tasks, tensors [S, N]."""
        ended = row.terminated | row.truncated
        self._running += torch.stack((row.reward, row.valid))
        self._rows.append(torch.cat((torch.stack((ended, row.extra["success"])), self._running)))
        self._running *= ~ended

    def running(self) -> dict[str, Any]:
        """Return what is known of the running episodes."""
        return {"running": self._running}

    def set_running(self, running: Mapping[str, Any], goes_on: np.ndarray) -> None:
        """Continue with running episodes; those of tasks that do not go on, [S], start anew."""
        kept = torch.from_numpy(goes_on).to(self._running.device)
        self._running[:] = running["running"].to(self._running.device) * kept[:, None]

    def latest(self) -> tuple[Tensor, Tensor]:
        """Return of each task how many episodes have ended since the last call, and the latest.

        Returns:
            Counts [S], and success, return and length of as many as the means cover, [S, 3, E],
            the latest last; where fewer ended the first ones are nothing.
        """
        rows, self._rows = torch.stack(self._rows), []
        # By time and then by environment, as they would be taken one by one.
        columns = rows.permute(2, 1, 0, 3).flatten(2)
        ended, columns = columns[:, 0].bool(), columns[:, 1:]
        steps = torch.arange(ended.shape[1], device=ended.device)
        places = torch.where(ended, steps, -1).topk(min(self._window, len(steps))).values.flip(-1)
        chosen = places.clamp(min=0)[:, None].expand(-1, columns.shape[1], -1)
        return ended.sum(-1), columns.gather(-1, chosen)

    def take(self, counts: np.ndarray, episodes: np.ndarray) -> None:
        """Take what `latest` has returned, on the host."""
        for task, count, columns in zip(self.tasks, counts, episodes, strict=True):
            self.episodes[task] += int(count)
            told = columns.T[max(columns.shape[1] - int(count), 0) :]
            for success, episode_return, length in told.tolist():
                self._take(task, episode_return, length, success)
