"""Episodes that measure and do not train."""

from __future__ import annotations

import numpy as np
import torch

from lit_mtdqn.envs import TaskEnv
from lit_mtdqn.rollout.exploration import EpsilonGreedy
from lit_mtdqn.types import ActionValues, Episodes, StepRow

Array = np.ndarray


class _Tally:
    """Sums over the first episode of every environment, [N]."""

    def __init__(self, num_envs: int, gamma: float) -> None:
        self.gamma = gamma
        self.step = 0
        self.episode_return = np.zeros(num_envs)
        self.discounted_return = np.zeros(num_envs)
        self.episode_length = np.zeros(num_envs, np.int64)
        self.success = np.zeros(num_envs, bool)
        self.playing = np.ones(num_envs, bool)

    def add(self, row: StepRow) -> None:
        reward = np.where(self.playing, row.reward, 0.0)
        self.episode_return += reward
        self.discounted_return += self.gamma**self.step * reward
        self.episode_length += self.playing
        self.success |= self.playing & row.extra["success"]
        self.step += 1

    def close(self, row: StepRow, next_value: Array, last: bool) -> None:
        """End the episodes that ended, or all; what was cut off counts as predicted."""
        cut = self.playing & ~row.terminated & (row.truncated | last)
        self.discounted_return += self.gamma**self.step * np.where(cut, next_value, 0.0)
        self.playing &= ~(row.terminated | row.truncated | last)


class _Player:
    """Acts nearly greedily in the environments of one task."""

    def __init__(
        self, policy: ActionValues, task_index: int, num_actions: int, epsilon: float, seed: int
    ) -> None:
        self._policy = policy
        self._task = torch.tensor([task_index])
        self._num_actions = num_actions
        self._epsilon = np.array([epsilon])
        self._generator = np.random.default_rng(seed)

    def act(self, observation: Array, mask: Array | None) -> tuple[Array, Array, Array]:
        """Return actions, their values and the largest values, each [N]."""
        stacked = torch.from_numpy(observation)[None]
        values = self._policy.action_values(stacked, self._task).cpu().numpy()
        if mask is None:
            mask = np.arange(values.shape[-1]) < self._num_actions
        allowed = np.broadcast_to(mask, values.shape)
        action = EpsilonGreedy.select(values, allowed, self._epsilon, self._generator)[0]
        chosen = np.take_along_axis(values[0], action[:, None], 1)[:, 0]
        return action, chosen, np.where(allowed, values, -np.inf).max(-1)[0]


def play_episodes(
    policy: ActionValues,
    env: TaskEnv,
    task_index: int,
    *,
    num_actions: int,
    epsilon: float,
    seed: int,
    max_steps: int,
) -> Episodes:
    """Play one episode in every copy of an environment and report them.

    Each copy's episode starts from a state that depends on `seed` alone: policies are compared on
    the very same starts, and no episode is preferred for being short.

    Args:
        policy: Acts greedily, but for epsilon.
        env: The task's environments; one episode is played in each.
        task_index: The task's place among all tasks.
        num_actions: Actions that the task really has.
        epsilon: Probability of a random action, in [0, 1].
        seed: Seed of starts and draws.
        max_steps: Env steps after which an unfinished episode is counted as it stands.
    """
    player = _Player(policy, task_index, num_actions, epsilon, seed)
    tally = _Tally(env.num_envs, env.spec.gamma)
    action, first_value, _ = player.act(*env.reset(seed))
    while tally.playing.any():
        row = env.step(action)
        tally.add(row)
        action, _, next_value = player.act(row.next_observation, row.next_action_mask)
        tally.close(row, next_value, last=tally.step == max_steps)
    return Episodes(
        task=env.task,
        episode_return=tally.episode_return,
        episode_length=tally.episode_length,
        success=tally.success if env.spec.success_key is not None else None,
        q_bias=first_value - tally.discounted_return,
    )
