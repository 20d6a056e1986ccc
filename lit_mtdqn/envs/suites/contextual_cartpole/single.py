"""Single CartPole with contexts."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.core import RenderFrame
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.contextual_cartpole.context import Context
from lit_mtdqn.envs.suites.contextual_cartpole.vector import (
    MAX_EPISODE_STEPS,
    METADATA,
    ContextualCartPoleVectorEnv,
)


class ContextualCartPoleEnv(gymnasium.Env[NDArray[np.float32], np.integer[Any]]):
    """Balances one pole, as a batch of one of `ContextualCartPoleVectorEnv`.

    Unlike the batch it waits for `reset` after the end of an episode, every reset draws the context
    anew, and `info["success"]` is a bool.

    Args:
        context: What differs from CartPole-v1; of a list every episode draws one.
        observe_context: Whether observations tell the context.
        max_episode_steps: Time limit, at least 1. The one that `gymnasium.make` adds comes on top.
        render_mode: `rgb_array` or None.
    """

    metadata = METADATA

    def __init__(
        self,
        context: Context | Sequence[Context] | None = None,
        observe_context: bool = False,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
    ) -> None:
        self._batch = ContextualCartPoleVectorEnv(
            1,
            context,
            observe_context=observe_context,
            max_episode_steps=max_episode_steps,
            render_mode=render_mode,
        )
        self._is_over = True
        self.render_mode = render_mode
        self.action_space = self._batch.single_action_space
        self.observation_space = self._batch.single_observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a new episode and return its observation, [4 or 9]; `options` are ignored."""
        super().reset(seed=seed)
        self._batch.np_random = self.np_random
        self._is_over = False
        observations, _ = self._batch.reset()
        return observations[0], {"success": False}

    def step(
        self, action: np.integer[Any]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the cart for 0.02 s to the left (0) or to the right (1).

        Returns:
            Observation [4 or 9], reward, `terminated`, `truncated` and `info`.
        """
        if self._is_over:
            raise gymnasium.error.ResetNeeded("`step` must follow a `reset` of the ended episode.")
        observations, reward, terminated, truncated, info = self._batch.step(np.array([action]))
        self._is_over = bool(terminated[0] or truncated[0])
        success = {"success": bool(info["success"][0])}
        return observations[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), success

    def render(self) -> RenderFrame | list[RenderFrame] | None:
        """Return a frame, uint8 [320, 480, 3], or None without `render_mode`."""
        frames = self._batch.render()
        return None if frames is None else frames[0]
