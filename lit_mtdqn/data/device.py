"""Phases that are played, folded and remembered on a device."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.data.phases import PhaseSource
from lit_mtdqn.rollout import DeviceStatistics, WrongNumber
from lit_mtdqn.types import PLAIN_COLUMNS, Array, StepRow


class DeviceSource(PhaseSource):
    """Plays, remembers and samples where environments, replays and learner share a device.

    The host waits for the device once, when a phase has been played, and learns then how many steps
    were valid, how many transitions are complete and how episodes went. Until then it takes every
    row for a step, so that epsilon's schedule runs ahead by the reset rows of the running phase.

    Args:
        *args: As `PhaseSource` takes them; the statistics are `DeviceStatistics`.
        device: Where rows are.
        **options: As `PhaseSource` takes them.
    """

    statistics: DeviceStatistics

    def __init__(self, *args: Any, device: torch.device, **options: Any) -> None:
        super().__init__(*args, device=device, **options)
        self._device = device
        self._complete: list[int] = []
        self._is_sound = True

    def _no_steps(self) -> Tensor:
        return torch.zeros(len(self.acting), dtype=torch.int64, device=self._device)

    def _steps_so_far(self, valid: Array, step: int) -> np.ndarray:
        return np.full(len(self.acting), (step + 1) * self.statistics.num_envs)

    def _settled(self, valid: Array) -> np.ndarray:
        fold = self._accumulator.fold()
        told = fetch([valid, fold, self._accumulator.are_finite(), *self.statistics.latest()])
        steps, complete, sound, counts, episodes = told
        self._is_sound = bool(sound)
        self._complete = complete.astype(int).tolist()
        self.statistics.take(counts, episodes)
        return steps.astype(np.int64)

    def _wrong_number(self, rows: Sequence[StepRow]) -> WrongNumber | None:
        # The rows are moved to the host where that is known to be worth it.
        return None if self._is_sound else super()._wrong_number([_on_host(row) for row in rows])

    def _remember(self) -> None:
        self._extend(self._accumulator.emit(self._complete))


def _on_host(row: StepRow) -> StepRow:
    plain: Any = row[PLAIN_COLUMNS]
    return StepRow(*(column.cpu().numpy() for column in plain))


def fetch(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Return tensors as float64 arrays, moved from their device at once."""
    together = torch.cat([tensor.flatten().double() for tensor in tensors]).cpu().numpy()
    borders = np.cumsum([prod(tensor.shape) for tensor in tensors])[:-1]
    parts = np.split(together, borders)
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
