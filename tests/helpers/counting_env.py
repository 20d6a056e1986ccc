"""Environments that count: every number they will ever return is known in advance.

An observation is (identity, episode, step). The identity follows from the seed of the reset, so it
tells which copy of which environment speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from helpers.tape import Tape
from numpy.typing import NDArray

Array = NDArray[Any]

SINGLE = "helpers.counting_env:CountingEnv"
VECTOR = "helpers.counting_env:CountingVectorEnv"
# Small enough for float32 to hold every identity exactly.
IDENTITIES = 1_000
PATTERN = (3, -5, 1, -2)
# What a reset row returns as reward; a reader that counts it is caught.
RESET_REWARD = 99.0
SPACE = spaces.Box(0.0, np.inf, (3,), np.float32)


def identity_of(seed: int) -> int:
    """Return the identity of the copy that was reset with a seed."""
    return seed % IDENTITIES


def signed_length(pattern: Sequence[int], identity: int, episode: int) -> int:
    """Return an episode's number of steps; negative where it is truncated, not terminated."""
    return pattern[(identity + episode) % len(pattern)]


def reward_at(identity: int, episode: int, step: int) -> float:
    """Return the reward of a step, a whole number in [-3, 3]."""
    return float((identity + 3 * episode + 5 * step) % 7 - 3)


def mask_at(identity: int, step: int, num_actions: int) -> Array:
    """Return which actions are allowed: all but one, which changes from step to step."""
    allowed: Array = np.arange(num_actions) != (identity + step) % num_actions
    return allowed


class CountingEnv(gymnasium.Env[Array, int]):
    """One copy.

    Args:
        pattern: Signed lengths of the episodes, in turn.
        num_actions: Number of actions.
        first_action: The smallest action.
        offset: Added to all rewards.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  as in gymnasium

    def __init__(
        self,
        pattern: Sequence[int] = PATTERN,
        num_actions: int = 2,
        first_action: int = 0,
        offset: float = 0.0,
    ) -> None:
        self.observation_space = SPACE
        self.action_space = spaces.Discrete(num_actions, start=first_action)  # type: ignore[assignment]
        self._pattern = pattern
        self._num_actions = num_actions
        self._offset = offset
        self._identity = 0
        self._episode = -1
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._identity, self._episode = identity_of(seed), -1
        self._episode += 1
        self._step = 0
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(np.int64(action))
        reward = reward_at(self._identity, self._episode, self._step) + self._offset
        self._step += 1
        length = signed_length(self._pattern, self._identity, self._episode)
        ended = self._step >= abs(length)
        info = {**self._info(), "success": ended and length > 0}
        return self._observation(), reward, ended and length > 0, ended and length < 0, info

    def _observation(self) -> Array:
        return np.array([self._identity, self._episode, self._step], np.float32)

    def _info(self) -> dict[str, Any]:
        return {"mask": mask_at(self._identity, self._step, self._num_actions)}


class CountingVectorEnv(VectorEnv[Array, Array, Array]):
    """Many copies, stepped by arrays, with next-step autoreset of its own.

    Args:
        num_envs: Number of copies.
        pattern: Signed lengths of the episodes, in turn.
        num_actions: Number of actions.
        max_episode_steps: Steps after which an episode is truncated, if it was not over before.
        tape: Where resets and steps are recorded.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  as in gymnasium

    def __init__(
        self,
        num_envs: int = 1,
        pattern: Sequence[int] = PATTERN,
        num_actions: int = 2,
        max_episode_steps: int | None = None,
        tape: Tape | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.single_observation_space = SPACE
        self.observation_space = batch_space(SPACE, num_envs)
        self.single_action_space = spaces.Discrete(num_actions)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._pattern = pattern
        self._limit = max_episode_steps
        self._tape = Tape() if tape is None else tape
        self._identity = np.zeros(num_envs, np.int64)
        self._episode = np.zeros(num_envs, np.int64)
        self._step = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, bool)
        # The next step overwrites what this one returned, as batched environments may do.
        self._shown = np.zeros((num_envs, 3), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        assert seed is not None
        self._tape.record("reset", num_envs=self.num_envs, seed=seed)
        self._identity[:] = [identity_of(seed + place) for place in range(self.num_envs)]
        self._episode[:] = 0
        self._step[:] = 0
        self._ended[:] = False
        return self._observation(), self._info()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        self._tape.record("step", num_envs=self.num_envs, actions=actions.tolist())
        restart = self._ended.copy()
        numbers = list(zip(self._identity, self._episode, self._step, strict=True))
        rewards = np.array([reward_at(*map(int, number)) for number in numbers])
        self._step += 1
        signed = np.array([signed_length(self._pattern, int(i), int(e)) for i, e, _ in numbers])
        ended = (self._step >= abs(signed)) & ~restart
        terminated, truncated = ended & (signed > 0), ended & (signed < 0)
        if self._limit is not None:
            truncated |= (self._step >= self._limit) & ~restart & ~terminated
        self._episode[restart] += 1
        self._step[restart] = 0
        self._ended = terminated | truncated
        rewards[restart] = RESET_REWARD
        info = {**self._info(), "success": terminated, "_success": self._ended}
        return self._observation(), rewards, terminated, truncated, info

    def get_state(self) -> dict[str, Array]:
        names = ("_identity", "_episode", "_step", "_ended")
        return {name: getattr(self, name).copy() for name in names}

    def set_state(self, state: dict[str, Array]) -> None:
        for name, array in state.items():
            setattr(self, name, array.copy())

    def _observation(self) -> Array:
        self._shown[:] = np.stack([self._identity, self._episode, self._step], 1)
        return self._shown

    def _info(self) -> dict[str, Any]:
        assert isinstance(self.single_action_space, spaces.Discrete)
        num_actions = int(self.single_action_space.n)
        pairs = zip(self._identity, self._step, strict=True)
        return {"mask": np.stack([mask_at(int(i), int(s), num_actions) for i, s in pairs])}


gymnasium.register(
    "Counting-v0",
    entry_point="helpers.counting_env:CountingEnv",
    vector_entry_point="helpers.counting_env:CountingVectorEnv",
)
