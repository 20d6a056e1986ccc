"""An environment that fails in one of the ways in which a user's may."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from helpers.counting_env import Array, CountingEnv

FAILING = "helpers.failing_env:FailingEnv"
EXIT_CODE = 7


SPOILT: dict[str, Callable[[Array, float], tuple[Array, float]]] = {
    "nan": lambda observation, reward: (observation * np.float32(math.nan), reward),
    "shape": lambda observation, reward: (observation[:1], reward),
    "kind": lambda observation, reward: (observation * 1j, reward),
    "reward": lambda observation, _: (observation, math.inf),
}


class UnsendableError(Exception):
    """Takes two arguments and holds what cannot be pickled, as errors of libraries may."""

    def __init__(self, part: str, number: int) -> None:
        super().__init__(f"{part} number {number}\n is broken")
        self.handle = lambda: number


class FailingEnv(CountingEnv):
    """Counts, but for one thing.

    Args:
        how: `raise`, `exit` or `hang`, or what a step returns: a `nan` in an
            observation, one of another `shape` or `kind`, or an infinite `reward`.
        when: `make`, `reset`, `step` or `close`.
        only_in: The identity of the copy that fails, or None for every one.
        parent: The process whose copies do not fail.
        after: Number of steps that do not fail.
        building: Seconds that it takes to be built.
    """

    def __init__(
        self,
        how: str,
        when: str,
        only_in: int | None,
        parent: int,
        after: int = 0,
        building: float = 0.0,
    ) -> None:
        time.sleep(building)
        super().__init__()
        self._how, self._when, self._only_in, self._parent = how, when, only_in, parent
        self._left = after
        self._fail("make")

    def reset(self, **kwargs: Any) -> tuple[Array, dict[str, Any]]:
        first = super().reset(**kwargs)
        self._fail("reset")
        return first

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        if self._left >= 0:
            return super().step(action)
        spoils = SPOILT.get(self._how)
        if spoils is None:
            self._fail("step")
            return super().step(action)
        observation, reward, terminated, truncated, info = super().step(action)
        if self._only_in in (None, self._identity):
            observation, reward = spoils(observation, reward)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        self._fail("close")

    def _fail(self, now: str) -> None:
        is_spared = self._only_in not in (None, self._identity)
        if now != self._when or is_spared or os.getpid() == self._parent:
            return
        match self._how:
            case "raise":
                raise UnsendableError("wheel", 3)
            case "exit":
                os._exit(EXIT_CODE)
            case _:
                time.sleep(600)


class OverflowingReward(gymnasium.RewardWrapper[Any, Any]):
    """Rewards that are infinite from some env step of a copy on.

    Args:
        env: One copy.
        after: Number of sound rewards.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], after: int) -> None:
        super().__init__(env)
        self._left = after

    def reward(self, reward: Any) -> float:
        self._left -= 1
        return float(reward) if self._left >= 0 else math.inf
