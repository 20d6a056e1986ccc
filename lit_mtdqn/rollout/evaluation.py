"""Episodes that measure and do not train."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lit_mtdqn.envs import STARTING, Layout, TaskEnv
from lit_mtdqn.rollout.exploration import EpsilonGreedy
from lit_mtdqn.rollout.wrong_numbers import unsound
from lit_mtdqn.types import ActionValues, Episodes, NonFiniteError, StepRow, TaskSpec

Array = np.ndarray
MAX_SINGLE_COPIES = 32


class _Tally:
    """Sums over the first episode of every environment, [N].

    Args:
        num_envs: N.
        episodes: How many of the environments count; the last ones may not.
        gamma: Discount.
    """

    def __init__(self, num_envs: int, episodes: int, gamma: float) -> None:
        self.gamma = gamma
        self.step = 0
        self.episode_return = np.zeros(num_envs)
        self.discounted_return = np.zeros(num_envs)
        self.episode_length = np.zeros(num_envs, np.int64)
        self.success = np.zeros(num_envs, bool)
        self.playing = np.arange(num_envs) < episodes

    def add(self, row: StepRow) -> None:
        reward = np.where(self.playing, row.reward, 0.0)
        self.episode_return += reward
        self.discounted_return += self.gamma**self.step * reward
        self.episode_length += self.playing
        self.success |= self.playing & row.extra["success"]
        # Rewards without numbers spoil a return by themselves.
        blind = unsound(row.next_observation, 1)
        if blind is not None:
            self.episode_return[blind & self.playing] = np.nan
        self.step += 1

    def close(self, row: StepRow, next_value: Array, last: bool) -> None:
        """End the episodes that ended, or all; what was cut off counts as predicted."""
        cut = self.playing & ~row.terminated & (row.truncated | last)
        self.discounted_return += self.gamma**self.step * np.where(cut, next_value, 0.0)
        self.playing &= ~(row.terminated | row.truncated | last)


class Player:
    """Acts greedily in the environments of one task, but for epsilon.

    Args:
        policy: Says what actions are worth.
        task_index: The task's place among all tasks.
        action_mask: Actions that the task really has, Booleans [A].
        epsilon: Probability of a random action, in [0, 1].
        seed: Seed of the draws.
    """

    def __init__(
        self, policy: ActionValues, task_index: int, action_mask: Array, epsilon: float, seed: int
    ) -> None:
        self._policy = policy
        self._task = torch.tensor([task_index])
        self._static_mask = action_mask
        self._epsilon = np.array([epsilon])
        self._generator = np.random.default_rng(seed)

    def act(self, observation: Array, mask: Array | None) -> tuple[Array, Array, Array]:
        """Return actions, their values and the largest values, each [N]."""
        stacked = torch.from_numpy(observation)[None]
        values = self._policy.action_values(stacked, self._task).cpu().numpy()
        allowed = np.broadcast_to(self._static_mask if mask is None else mask, values.shape)
        draws = self._generator.random((2, *values.shape[:2]))
        action = EpsilonGreedy.select(values, allowed, self._epsilon, draws)[0]
        chosen = np.take_along_axis(values[0], action[:, None], 1)[:, 0]
        return action, chosen, np.where(allowed, values, -np.inf).max(-1)[0]


def most_rounds(episodes: int) -> int:
    """Return in how many rounds episodes are played at most; where all are stepped together, in 1.

    Args:
        episodes: Number of episodes.
    """
    return math.ceil(episodes / MAX_SINGLE_COPIES)


def make_evaluation_env(task: str, spec: TaskSpec, episodes: int, layout: Layout) -> TaskEnv:
    """Build as many copies of a task's environment as `play_episodes` should play at a time.

    These are as many as there are episodes where they are stepped together. Single copies take time
    and memory each, so that there are at most 32, in rounds of one size as nearly as possible.
    None is restarted after a fault, which ends the evaluation by an error; where the task has a
    `step_timeout`, so does one that hangs.

    Args:
        task: Name of the task.
        spec: The task.
        episodes: Number of episodes.
        layout: Padded shapes of the run.
    """
    # There may be many more copies than in training, and an error ends the run.
    patience = None if spec.step_timeout is None else max(spec.step_timeout, STARTING)
    # An episode that a fault has cut off would count as it stands.
    spec = replace(spec, restarts=0, step_timeout=patience)
    rounds = most_rounds(episodes)
    env = TaskEnv(task, spec, math.ceil(episodes / rounds), layout)
    if rounds == 1 or env.steps_single_copies:
        return env
    env.close()
    return TaskEnv(task, spec, episodes, layout)


def play_episodes(
    policy: ActionValues,
    env: TaskEnv,
    task_index: int,
    *,
    num_actions: int,
    epsilon: float,
    seed: int,
    max_steps: int,
    episodes: int | None = None,
    rounds: slice = slice(None),
) -> Episodes:
    """Play one episode in every copy of an environment, or several rounds of them, and report them.

    Each episode starts from a state that depends on `seed` alone: policies are compared on the very
    same starts, and no episode is preferred for being short. The return of an episode with a reward
    or an observation that is no number is none, either.

    Args:
        policy: Acts greedily, but for epsilon.
        env: The task's environments.
        task_index: The task's place among all tasks.
        num_actions: Actions that the task really has.
        epsilon: Probability of a random action, in [0, 1].
        seed: Seed of starts and draws; episode i of single copies starts from `seed + i`.
        max_steps: Env steps after which an unfinished episode is counted as it stands.
        episodes: Number of episodes; None plays one in every copy.
        rounds: Which rounds are played; the episodes of the others are reported as zeros.
    """
    mask = env.layout.action_mask(num_actions)
    count = env.num_envs if episodes is None else episodes
    firsts = range(0, count, env.num_envs)
    reports = []
    for first in firsts:
        size = min(env.num_envs, count - first)
        if first not in firsts[rounds]:
            reports.append(unplayed(env.task, env.spec, size))
            continue
        player = Player(policy, task_index, mask, epsilon, seed + first)
        reports.append(_play_round(player, env, size, seed + first, max_steps))
    return _joined(reports)


def unplayed(task: str, spec: TaskSpec, episodes: int) -> Episodes:
    """Return zeros where another rank plays.

    Args:
        task: Name of the task.
        spec: The task.
        episodes: Number of episodes.
    """
    none, length = np.zeros(episodes), np.zeros(episodes, np.int64)
    success = None if spec.success_key is None else np.zeros(episodes, bool)
    return Episodes(task, none, length, success, none)


def require_numbers(reports: Sequence[Episodes], seed: int) -> None:
    """Refuse episodes whose returns are none, which would be no scores.

    Args:
        reports: Episodes of each task, the same on all ranks.
        seed: Of their starts.

    Raises:
        NonFiniteError: If an episode had a reward or an observation that is infinite or no number.
    """
    for report in reports:
        wrong = np.flatnonzero(~np.isfinite(report.episode_return))
        if len(wrong):
            raise NonFiniteError(
                f"`episode_return` of task {report.task} must be finite. Got "
                f"{report.episode_return[wrong[0]]} in episode {wrong[0]} (the first is 0) of an "
                f"evaluation from seed {seed}, from its rewards or observations."
            )


def gather_episodes(
    reports: Sequence[Episodes], sum_over_ranks: Callable[[torch.Tensor], torch.Tensor]
) -> list[Episodes]:
    """Return the episodes that ranks have played between them, in one message.

    Args:
        reports: Episodes of each task; of each episode one rank has the numbers, the others zeros.
        sum_over_ranks: Sums a tensor over ranks.
    """
    rows = [_as_rows(report) for report in reports]
    if not rows:
        return []
    ends = np.cumsum([row.shape[1] for row in rows])
    summed = sum_over_ranks(torch.from_numpy(np.concatenate(rows, 1))).numpy()
    pieces = np.split(summed, ends[:-1], axis=1)
    return [_from_rows(report, own) for report, own in zip(reports, pieces, strict=True)]


def _play_round(player: Player, env: TaskEnv, episodes: int, seed: int, max_steps: int) -> Episodes:
    """Play one episode in each of the first copies."""
    tally = _Tally(env.num_envs, episodes, env.spec.gamma)
    action, first_value, _ = player.act(*env.reset(seed))
    while tally.playing.any():
        row = env.step(action)
        tally.add(row)
        action, _, next_value = player.act(row.next_observation, row.next_action_mask)
        tally.close(row, next_value, last=tally.step == max_steps)
    return Episodes(
        task=env.task,
        episode_return=tally.episode_return[:episodes],
        episode_length=tally.episode_length[:episodes],
        success=tally.success[:episodes] if env.spec.success_key is not None else None,
        q_bias=(first_value - tally.discounted_return)[:episodes],
    )


def _as_rows(report: Episodes) -> Array:
    """Return a report's numbers as float64, which holds all of them exactly, [4, N]."""
    success = np.zeros(len(report.q_bias)) if report.success is None else report.success
    columns = report.episode_return, report.episode_length, success, report.q_bias
    return np.stack([column.astype(np.float64) for column in columns])


def _from_rows(report: Episodes, rows: Array) -> Episodes:
    """Return numbers as `_as_rows` has them as a report of the same kind."""
    returns, lengths, success, bias = rows
    reached = None if report.success is None else success.astype(bool)
    return Episodes(report.task, returns, lengths.astype(np.int64), reached, bias)


def _joined(rounds: Sequence[Episodes]) -> Episodes:
    task, *columns = zip(*rounds, strict=True)
    joined: list[Any] = [
        None if column[0] is None else np.concatenate(column) for column in columns
    ]
    return Episodes(task[0], *joined)
