"""EnvPool's batches under Gymnasium's contract."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium.core import RenderFrame
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

Array = np.ndarray


class EnvPoolVectorEnv(VectorEnv[Any, Any, Any]):
    """A pool of EnvPool's with batched spaces and with seeds at `reset`.

    EnvPool takes a seed only when a pool is made, so that every reset with a seed makes a new pool,
    which takes milliseconds; copy i has seed + i. States cannot be saved.

    Args:
        env_id: One of `envpool.list_all_envs()`.
        num_envs: Number of copies.
        **config: Further arguments of `envpool.make`, such as `num_threads` (by default one for
            each core), `max_episode_steps` and `render_mode`.

    Raises:
        gymnasium.error.NameNotFound: If EnvPool has no such id.
        TypeError: If EnvPool does not take an argument.

    References:
        Weng et al. 2022, "EnvPool: A Highly Parallel Reinforcement Learning Environment Execution
        Engine", https://arxiv.org/abs/2206.10558.
    """

    def __init__(self, env_id: str, num_envs: int, **config: Any) -> None:
        self._envpool = importlib.import_module("envpool")
        if env_id not in self._envpool.list_all_envs():
            raise gymnasium.error.NameNotFound(
                f"EnvPool has no {env_id}; `envpool.list_all_envs()` returns what it has"
            )
        self._arguments = {"task_id": env_id, "num_envs": num_envs, **config}
        self._pool = self._make(seed=0)
        self.num_envs = num_envs
        self.metadata = dict(self._pool.metadata)
        self.render_mode = config.get("render_mode")
        # A pool calls the spaces of a single copy by the names that Gymnasium has for batches.
        self.single_observation_space = self._pool.observation_space
        self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every copy.

        Args:
            seed: Seed of the first copy, which each following one counts up, or None to draw on.
            options: Ignored.
        """
        if seed is not None:
            self._pool.close()
            self._pool = self._make(seed)
        observation, info = self._pool.reset()
        return observation, info

    def step(self, actions: Array) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Step every copy; those that just ended start anew and ignore their action."""
        result: tuple[Any, Array, Array, Array, dict[str, Any]] = self._pool.step(
            np.asarray(actions, np.int32)
        )
        return result

    def render(self) -> tuple[RenderFrame, ...] | None:
        """Return the first copy's frame, (uint8 [H, W, 3],), or None without `render_mode`."""
        return None if self.render_mode is None else tuple(self._pool.render())

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the pool's threads."""
        self._pool.close()

    def _make(self, seed: int) -> Any:
        pool = self._envpool.make(**self._arguments, env_type="gymnasium", seed=seed)
        with warnings.catch_warnings():
            # A pool makes its space when it is first asked for, with float64 bounds of float32
            # numbers.
            warnings.filterwarnings("ignore", message=".*precision lowered by casting")
            _ = pool.observation_space
        return pool
