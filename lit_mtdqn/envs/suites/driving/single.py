"""Single driving environment."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.core import RenderFrame
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.driving.vector import MAX_EPISODE_STEPS, METADATA, DrivingVectorEnv


class DrivingEnv(gymnasium.Env[NDArray[np.float32], np.integer[Any]]):
    """Drives one car, as a batch of one of `DrivingVectorEnv`, which documents the numbers.

    Unlike the batch it waits for `reset` after the end of an episode, and `info["success"]` is a
    bool: False until the end of the road is reached without a violation.

    Args:
        task: `lane_keeping`, `pedestrian` or `traffic_light`.
        max_episode_steps: Time limit, at least 1. The one that `gymnasium.make` adds comes on top.
        render_mode: `rgb_array` or None.
        observation_noise: Standard deviation of the error of every observed number.
        detection_range: m within which lights and pedestrians are seen; None is anywhere.
    """

    metadata = METADATA

    def __init__(
        self,
        task: str,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
        observation_noise: float = 0.0,
        detection_range: float | None = None,
    ) -> None:
        self._batch = DrivingVectorEnv(
            task, 1, max_episode_steps, render_mode, observation_noise, detection_range
        )
        self._is_over = True
        self.render_mode = render_mode
        self.action_space = self._batch.single_action_space
        self.observation_space = self._batch.single_observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a new episode and return its observation, [20]; `options` are ignored."""
        super().reset(seed=seed)
        self._batch.np_random = self.np_random
        self._is_over = False
        observations, _ = self._batch.reset()
        return observations[0], {"success": False}

    def step(
        self, action: np.integer[Any]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Drive for 0.2 s by `action`, in 0..8.

        Returns:
            Observation [20], reward, `terminated`, `truncated` and `info`.
        """
        if self._is_over:
            raise gymnasium.error.ResetNeeded("`step` must follow a `reset` of the ended episode.")
        observations, reward, terminated, truncated, info = self._batch.step(np.array([action]))
        self._is_over = bool(terminated[0] or truncated[0])
        success = {"success": bool(info["success"][0])}
        return observations[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), success

    def render(self) -> RenderFrame | list[RenderFrame] | None:
        """Return a frame, uint8 [270, 480, 3], or None without `render_mode`."""
        frames = self._batch.render()
        return None if frames is None else frames[0]
