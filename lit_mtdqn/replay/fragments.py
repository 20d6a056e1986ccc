"""Vector steps as they were played."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.replay.accumulator import MASKS, reward_bounds, stack_rows
from lit_mtdqn.types import StepRow, TaskSpec, Transition

Array = np.ndarray


class FragmentAccumulator:
    """Keeps the steps of S acting tasks in their order, for returns that are folded later.

    Rewards are clipped per step.

    Args:
        specs: The acting tasks, in the order of the rows' first axis.
        task: Index of each among all tasks, [S].
    """

    def __init__(self, specs: Sequence[TaskSpec], task: Sequence[int]) -> None:
        self._gamma = np.array([[spec.gamma] for spec in specs], np.float32)
        self._low, self._high = reward_bounds(specs)
        self._task = torch.tensor(list(task))
        self._rows: list[StepRow] = []

    def add(self, row: StepRow) -> None:
        """Take the next vector step of all tasks, arrays [S, N, ...]."""
        self._rows.append(row._replace(extra={}))

    def emit(self) -> Transition:
        """Return the steps since the last call, of leading shape [L, S, N]."""
        rows, self._rows = stack_rows(self._rows), []
        masks = [rows.action_mask, rows.next_action_mask]
        extra = {
            name: torch.from_numpy(mask)
            for name, mask in zip(MASKS, masks, strict=True)
            if mask is not None
        }
        return Transition(
            observation=torch.from_numpy(rows.observation),
            action=torch.from_numpy(rows.action.astype(np.int64)),
            reward=_float32(np.clip(rows.reward, self._low, self._high)),
            discount=_float32(np.where(rows.terminated, 0.0, self._gamma)),
            next_observation=torch.from_numpy(rows.next_observation),
            weight=_float32(rows.valid),
            replay_index=torch.zeros(rows.valid.shape, dtype=torch.int64),
            task=self._task,
            extra=extra,
        )


def _float32(array: Array) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
