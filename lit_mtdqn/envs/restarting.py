"""Single environments that go on after a fault, as new ones."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

# Key of `info` with how many faults there were, and the traceback of the last one. A truncated step
# that has it was not made.
FAULT = "lit_mtdqn_fault"
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # s before an environment is built anew
# Between the seeds of one copy's environments; the copies' own lie next to one another.
SEED_STEP = 1_000_003


class RestartingEnv(gymnasium.Env[Any, Any]):
    """Plays an environment that may fail; where it does, its episode is cut and a new one is built.

    A fault is an error, a number that is none, or an observation of another shape or kind than the
    space says. The step that failed is no transition: it says so under `FAULT` in `info`, beside
    what `info` held last, and its episode is truncated. The next `reset` closes the environment
    and builds another one, after 0.1 s, and after twice as long for each further fault without a
    step in between, up to 10 s.

    Args:
        make: Builds one.
        restarts: How often that may be at most.

    Raises:
        Exception: What the environment raises, where no restart is left.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], restarts: int) -> None:
        self._make = make
        self._left = restarts
        self._in_a_row = 0
        self._is_broken = False
        self._seed = 0
        self._built = 1
        self._last: tuple[Any, dict[str, Any]] | None = None
        self.env = make()
        self.observation_space = self.env.observation_space
        self.action_space = self.env.action_space
        self.metadata, self.render_mode = self.env.metadata, self.env.render_mode
        self.spec = self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, in an environment that was built anew if the last one failed."""
        self._seed = self._seed if seed is None else seed
        faults = 0
        while True:
            try:
                if self._is_broken:
                    self._rebuild()
                    seed = self._seed + SEED_STEP * self._built
                observation, info = self.env.reset(seed=seed, options=options)
                check_observation(self.observation_space, observation)
            except Exception:
                self._take_restart()
                faults, fault = faults + 1, traceback.format_exc()
            else:
                break
        self._last = observation, info
        return observation, {**info, FAULT: (faults, fault)} if faults else info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Make a step, or cut the episode."""
        assert self._last is not None, "`reset` comes first"
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            check_observation(self.observation_space, observation)
            _check_reward(reward)
        except Exception:
            self._take_restart()
            observation, info = self._last
            return observation, 0.0, False, True, {**info, FAULT: (1, traceback.format_exc())}
        self._in_a_row = 0
        self._last = observation, info
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """Return a frame."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _take_restart(self) -> None:
        """Go on, or raise what is being handled where there has been enough of it."""
        if self._left == 0:
            raise
        self._left -= 1
        self._in_a_row += 1
        self._is_broken = True

    def _rebuild(self) -> None:
        with suppress(Exception):  # what is broken may not be closed, either
            self.env.close()
        time.sleep(waiting_time(self._in_a_row))
        self.env = self._make()
        self._built += 1
        self._is_broken = False


def waiting_time(faults: int) -> float:
    """Return how long to wait before another environment is built, in seconds.

    Args:
        faults: How many there were in a row.
    """
    return float(min(FIRST_WAIT * 2.0 ** (faults - 1), LONGEST_WAIT))


def check_observation(space: gymnasium.Space[Any], observation: Any) -> None:
    """Refuse an observation that is not of its space's kind; bounds are not looked at.

    Raises:
        ValueError: If its shape or kind is another, or a number of it is infinite or none.
    """
    match space:
        case spaces.Dict():
            for key, part in space.spaces.items():
                is_there = isinstance(observation, Mapping) and key in observation
                _require(is_there, f"have a part {key!r}", observation)
                check_observation(part, observation[key])
        case spaces.Tuple():
            _require(len(observation) == len(space), f"have {len(space)} parts", observation)
            for part, entry in zip(space.spaces, observation, strict=True):
                check_observation(part, entry)
        case spaces.Box():
            array = np.asarray(observation)
            _require(array.shape == space.shape, f"have the shape {space.shape}", array.shape)
            is_kind = np.can_cast(array.dtype, space.dtype, "same_kind")
            _require(is_kind, f"be {space.dtype}", array.dtype)
            is_finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
            _require(is_finite, "be finite", observation)
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            _require(space.contains(observation), f"lie in {space}", observation)


def _check_reward(reward: Any) -> None:
    if not math.isfinite(float(reward)):
        raise ValueError(f"The reward must be finite. Got {reward}.")


def _require(condition: bool, must: str, got: object) -> None:
    if not condition:
        raise ValueError(f"The observation must {must}. Got {got}.")
