"""Batched CartPole with contexts."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.core import RenderFrame
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from lit_mtdqn.envs.suites.batched import PlaceableVectorEnv, StepResult
from lit_mtdqn.envs.suites.contextual_cartpole.context import (
    CONTEXT_NAMES,
    Context,
    context_table,
    relative_context,
)
from lit_mtdqn.envs.suites.contextual_cartpole.dynamics import (
    MAX_ANGLE,
    MAX_POSITION,
    Floats,
    has_fallen,
    move,
)
from lit_mtdqn.envs.suites.contextual_cartpole.rendering import render_frame
from lit_mtdqn.functional.arrays import cast, fill_, may_hold, namespace_of, placed, renew_
from lit_mtdqn.types import Array, require

MAX_EPISODE_STEPS = 500
FIRST_STATE = 0.05  # bound of every number of a first state
METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}
VECTOR_METADATA = {**METADATA, "autoreset_mode": AutoresetMode.NEXT_STEP}


class ContextualCartPoleVectorEnv(PlaceableVectorEnv):
    """Balances many poles at once, each with physics of its own.

    With the default context it is Gymnasium's CartPole-v1: a reward of 1 per step until the pole
    leans by more than 12 degrees or the cart leaves the track (`terminated`), or the time limit is
    reached (`truncated`). `info["success"]`, [num_envs], says that the time limit was reached with
    the pole upright. The step after an end ignores the action and starts a new episode, with
    reward 0. Action 0 pushes to the left, 1 to the right.

    Observations, [num_envs, 4], are position (m), velocity (m/s), angle (rad) and angular velocity
    (rad/s); with `observe_context`, [num_envs, 9], five more say by which share gravity, length,
    cart mass, pole mass and force differ from the default.

    Args:
        num_envs: Number of copies, at least 1.
        context: What differs from CartPole-v1: a mapping with some of `gravity` (9.8 m/s^2),
            `length` (0.5 m, half of the pole's), `cart_mass` (1 kg), `pole_mass` (0.1 kg) and
            `force` (10 N); or a list of such mappings, of which one is drawn each time.
        draw_context: When one of several contexts is drawn: at the start of every `episode`, or
            for each `copy` at a reset of all, which then keeps it.
        observe_context: Whether observations tell the context.
        max_episode_steps: Time limit, at least 1.
        render_mode: `rgb_array` or None.
        device: Where everything is kept as tensors, such as `cuda`; None keeps arrays.

    Raises:
        ValueError: If a value is out of its range.

    References:
        Benjamins et al. 2023, "Contextualize Me -- The Case for Context in Reinforcement Learning",
        https://arxiv.org/abs/2202.04500.
    """

    metadata = VECTOR_METADATA

    def __init__(
        self,
        num_envs: int = 1,
        context: Context | Sequence[Context] | None = None,
        draw_context: Literal["episode", "copy"] = "episode",
        observe_context: bool = False,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(device)
        require(num_envs >= 1, "num_envs", "be at least 1", num_envs)
        require(max_episode_steps >= 1, "max_episode_steps", "be at least 1", max_episode_steps)
        moments = ("episode", "copy")
        require(draw_context in moments, "draw_context", f"be one of {moments}", draw_context)
        self.num_envs = num_envs
        self.draw_context = draw_context
        self.observe_context = observe_context
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.single_action_space = spaces.Discrete(2)
        self.single_observation_space = _observation_space(observe_context)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        contexts = context_table(context)
        self._contexts = placed(contexts, self.device)
        self._context: Floats = placed(contexts[:, np.zeros(num_envs, np.int64)], self.device)
        self._states: Floats = placed(np.zeros((4, num_envs)), self.device)
        self._step = placed(np.zeros(num_envs, np.int64), self.device)
        # Before the first reset every episode counts as over, so that a step would start it.
        self._over = placed(np.ones(num_envs, bool), self.device)

    @property
    def context(self) -> dict[str, Floats]:
        """Copies of the physics in force, by name, each [num_envs]."""
        return dict(zip(CONTEXT_NAMES, deepcopy(self._context), strict=True))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes everywhere and return their observations, [num_envs, 4 or 9].

        Args:
            seed: Seed of the generator, or None to draw on.
            options: Ignored.
        """
        self.seed(seed)
        everywhere = self._over | True
        self._start(everywhere)
        self._draw_contexts(everywhere)
        self._over = ~everywhere
        return self._observe(), {}

    def step(self, actions: Array) -> StepResult:
        """Push all carts for 0.02 s by `actions`, [num_envs] of 0 or 1.

        Returns:
            Observations [num_envs, 4 or 9], rewards, `terminated`, `truncated`, each [num_envs],
            and `info`; all of them new.
        """
        actions = self._checked(actions)
        over = self._over
        self._states = move(self._states, self._context, actions == 1)
        self._step += 1
        terminated = has_fallen(self._states) & ~over
        truncated = (self._step >= self.max_episode_steps) & ~over
        if may_hold(over):
            self._start(over)
            if self.draw_context == "episode":
                self._draw_contexts(over)
        self._over = terminated | truncated
        info = {"success": truncated & ~terminated, "_success": terminated | truncated}
        return self._observe(), cast(~over, "float32"), terminated, truncated, info

    def render(self) -> tuple[RenderFrame, ...] | None:
        """Return the first copy's frame, (uint8 [320, 480, 3],), or None without `render_mode`."""
        if self.render_mode is None:
            return None
        position, _, angle, _ = self._states[:, 0]
        return (render_frame(position, angle, self._context[CONTEXT_NAMES.index("length"), 0]),)

    def get_state(self) -> dict[str, Any]:
        """Return a copy of all that `set_state` needs to continue exactly from here."""
        return {
            "states": deepcopy(self._states),
            "context": deepcopy(self._context),
            "step": deepcopy(self._step),
            "over": deepcopy(self._over),
            "generator": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly from what `get_state` returned for the same `num_envs`."""
        shape = state["states"].shape
        require(shape == self._states.shape, "state", f"hold {self.num_envs} episodes", shape[1])
        # In place, wherever the batch is kept.
        self._states[:] = state["states"]
        self._context[:] = state["context"]
        self._step[:] = state["step"]
        self._over[:] = state["over"]
        self.np_random.bit_generator.state = state["generator"]

    def _start(self, where: Array) -> None:
        draw = self.np_random.uniform
        renew_(self._states, where, lambda count: draw(-FIRST_STATE, FIRST_STATE, (4, count)))
        fill_(self._step, where, 0)

    def _draw_contexts(self, where: Array) -> None:
        choices, draw = self._contexts.shape[1], self.np_random.integers
        if choices > 1:
            renew_(self._context, where, lambda count: self._contexts[:, draw(choices, size=count)])

    def _observe(self) -> Array:
        rows = self._states
        if self.observe_context:
            context = relative_context(self._context)
            rows = namespace_of(rows).concatenate([rows, context])
        return cast(rows.T, "float32")

    def _checked(self, actions: Array) -> Array:
        if self.device is not None:
            return actions
        actions = np.asarray(actions)
        shape = (self.num_envs,)
        require(actions.shape == shape, "actions", f"have shape {shape}", actions.shape)
        if actions.min() < 0 or actions.max() > 1:
            raise ValueError(f"`actions` must be 0 or 1. Got {actions}.")
        return actions


def _observation_space(observe_context: bool) -> spaces.Box:
    # Twice the limits, as in Gymnasium: the observation of a failure lies within them.
    high = [2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf]
    low = [-bound for bound in high]
    if observe_context:
        low += [-1.0] * len(CONTEXT_NAMES)
        high += [np.inf] * len(CONTEXT_NAMES)
    return spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
