"""Environments of any space, and factories of environments that go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from helpers.counting_env import PATTERN, CountingEnv, CountingVectorEnv

SHOWING = "helpers.showing_env:ShowingEnv"


class ShowingEnv(gymnasium.Env[Any, Any]):
    """Shows given observations in turn; its episode never ends.

    Args:
        observation_space: Any space.
        observations: Elements of it; none are needed to be probed only.
        action_space: Any space.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  as in gymnasium

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        observations: Sequence[Any] = (),
        action_space: gymnasium.Space[Any] | None = None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Discrete(2)
        self._observations = observations
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._observations[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        return self._observations[self._step % len(self._observations)], 0.0, False, False, {}


class SameStepVectorEnv(CountingVectorEnv):
    """Claims the autoreset that the package cannot use."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  as in gymnasium


class UnlimitedVectorEnv(CountingVectorEnv):
    """Takes no time limit."""

    def __init__(self, num_envs: int = 1, pattern: Sequence[int] = PATTERN) -> None:
        super().__init__(num_envs, pattern)


gymnasium.register(
    "Unlimited-v0",
    entry_point="helpers.counting_env:CountingEnv",
    vector_entry_point="helpers.showing_env:UnlimitedVectorEnv",
)
gymnasium.register(
    "UnlimitedWithLimit-v0",
    entry_point="helpers.counting_env:CountingEnv",
    vector_entry_point=UnlimitedVectorEnv,  # type: ignore[arg-type]
    max_episode_steps=3,
)


def make_counting(offset: float = 0.0) -> CountingEnv:
    """Return an environment, as a factory of a user would."""
    return CountingEnv(offset=offset)


def needs(package: str) -> CountingEnv:
    """Fail as an environment does whose package is not installed."""
    raise gymnasium.error.DependencyNotInstalled(f"{package} is not installed")


not_callable = 3
