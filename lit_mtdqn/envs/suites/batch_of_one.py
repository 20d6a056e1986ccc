"""The single form of an environment that is written for batches."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.core import RenderFrame
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray


class BatchOfOne(gymnasium.Env[NDArray[np.float32], np.integer[Any]]):
    """Plays a batch of one copy.

    Unlike the batch it waits for `reset` after the end of an episode. `info` holds what the batch's
    does of its copy, and `info["success"]`, where there is one, is a bool.

    Args:
        batch: One copy; documents the numbers.
    """

    def __init__(self, batch: VectorEnv[Any, Any, Any]) -> None:
        self._batch = batch
        self._is_over = True
        self.render_mode = batch.render_mode
        self.action_space = batch.single_action_space
        self.observation_space = batch.single_observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a new episode and return its observation; `options` are ignored."""
        super().reset(seed=seed)
        self._batch.np_random = self.np_random
        self._is_over = False
        observations, info = self._batch.reset()
        return observations[0], {"success": False, **_of_one(info)}

    def step(
        self, action: np.integer[Any]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one env step and return observation, reward, `terminated`, `truncated`, `info`."""
        if self._is_over:
            raise gymnasium.error.ResetNeeded("`step` must follow a `reset` of the ended episode.")
        observations, reward, terminated, truncated, info = self._batch.step(np.array([action]))
        self._is_over = bool(terminated[0] or truncated[0])
        ended = bool(terminated[0]), bool(truncated[0])
        return observations[0], float(reward[0]), *ended, _of_one(info)

    def render(self) -> RenderFrame | list[RenderFrame] | None:
        """Return a frame, uint8 [H, W, 3], or None without `render_mode`."""
        frames = self._batch.render()
        return None if frames is None else frames[0]


def _of_one(info: dict[str, Any]) -> dict[str, Any]:
    """Return the first copy's entries; those that begin with `_` say where the others hold."""
    first = {name: rows[0] for name, rows in info.items() if not name.startswith("_")}
    return {**first, "success": bool(first["success"])} if "success" in first else first
