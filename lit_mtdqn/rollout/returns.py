"""Discounted returns of training episodes, for learners that scale values by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_mtdqn.functional.returns import discounted_returns
from lit_mtdqn.types import ReturnSums, StepRow, TaskSpec

Array = np.ndarray
# Number of the fields that sum over steps; the others sum over returns.
_STEP_SUMS = 5


class ReturnTracker:
    """Sums up rewards, discounts and returns of S acting tasks.

    Of a truncated episode the return goes on as if its mean reward were paid for ever, because the
    true rest is unknown; with gamma = 1 nothing is added.

    Args:
        specs: The acting tasks, in the order of the rows' first axis.
        num_envs: N.
    """

    def __init__(self, specs: Sequence[TaskSpec], num_envs: int) -> None:
        self._gamma = np.array([spec.gamma for spec in specs])
        clips = [spec.reward_clip or (-np.inf, np.inf) for spec in specs]
        self._low, self._high = np.array(clips).reshape(-1, 2).T[..., None]
        # Rewards of the running episodes by task and time, [N] each.
        self._rewards: list[list[Array]] = [[] for _ in specs]
        self._length = np.zeros((len(specs), num_envs), np.int64)
        self._sums = np.zeros((len(ReturnSums._fields), len(specs)))

    def add(self, row: StepRow) -> None:
        """Take a vector step of all tasks, arrays [S, N]."""
        reward = np.clip(row.reward, self._low, self._high)
        discount = self._gamma[:, None] * (row.valid & ~row.terminated)
        steps = (row.valid, reward, reward**2, discount, discount**2)
        self._sums[: len(steps)] += [column.sum(1) for column in steps]
        self._length += row.valid
        for slot, rewards in enumerate(self._rewards):
            # A task that stands still has no row, so that an episode's last ones are all its own.
            if row.valid[slot].any():
                rewards.append(reward[slot])
        ended = row.terminated | row.truncated
        if not ended.any():
            return
        for slot, env in zip(*np.nonzero(ended), strict=True):
            self._finish(slot, env, bool(row.terminated[slot, env]))
        self._length[ended] = 0
        for rewards, length in zip(self._rewards, self._length.max(1), strict=True):
            del rewards[: len(rewards) - length]

    def _finish(self, slot: int, env: int, terminated: bool) -> None:
        length, gamma = self._length[slot, env], self._gamma[slot]
        reward = np.array([rewards[env] for rewards in self._rewards[slot][-length:]])
        goes_on = not terminated and gamma < 1.0
        rest = reward.mean() / (1.0 - gamma) if goes_on else 0.0
        returns = discounted_returns(reward, gamma, rest)
        count, square, largest = self._sums[_STEP_SUMS:, slot]
        self._sums[_STEP_SUMS:, slot] = (
            count + length,
            square + np.square(returns).sum(),
            max(largest, np.abs(returns).max()),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the rewards of the running episodes, and the sums since the last `take`."""
        none = np.zeros((0, self._length.shape[1]))
        rewards = [np.stack(rows) if rows else none for rows in self._rewards]
        return {"rewards": rewards, "length": self._length, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Any], goes_on: Array) -> None:
        """Continue with a saved state.

        Args:
            state: What `state_dict` has returned.
            goes_on: Which tasks' episodes go on, [S]; those of the others start anew.
        """
        self._sums[:] = state["sums"]
        self._length[:] = state["length"] * goes_on[:, None]
        self._rewards = [
            list(rows) if kept else [] for rows, kept in zip(state["rewards"], goes_on, strict=True)
        ]

    def take(self) -> list[ReturnSums]:
        """Return each task's sums since the last call."""
        taken = [ReturnSums(*column) for column in self._sums.T.tolist()]
        self._sums[:] = 0.0
        return taken
