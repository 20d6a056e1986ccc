"""Batched gathering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.core import RenderFrame
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.batched import Integers, StepResult
from lit_mtdqn.envs.suites.gathering.rendering import render_frame
from lit_mtdqn.types import require

FIELD = ("A..B", "....", "....", "B..A")
FREE = "."
MAX_EPISODE_STEPS = 30
# Up, right, down, left, as steps of (row, column).
MOVES = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])
METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}
VECTOR_METADATA = {**METADATA, "autoreset_mode": AutoresetMode.NEXT_STEP}


class GatheringVectorEnv(VectorEnv[NDArray[np.float32], Integers, NDArray[Any]]):
    """Walks over many fields and gathers things of several kinds, whose worth is the task.

    Things lie where the field has letters and are gone once the walker has been there. A step that
    gathers one is rewarded with what its kind is worth, every other with 0, so that tasks with
    unlike `worth` have the same dynamics and `reward = cumulants . worth` exactly: for successor
    features. `info["cumulants"]`, [num_envs, kinds], counts what a step has gathered of each kind,
    and is 0 at a reset. An episode starts in a random free cell, ends when all is gathered
    (`terminated`) or at the time limit (`truncated`). The step after an end ignores the action and
    starts a new episode, with reward 0.

    Actions go up, right, down, left; into a wall they stay. Observations, [num_envs, cells +
    things], are 1 at the walker's cell, row by row, and at each thing that is left, in the order of
    their cells.

    Args:
        num_envs: Number of fields, at least 1.
        worth: Reward of a thing of each kind, in alphabetical order.
        field: Rows of one length, a letter for each thing and `.` for each free cell.
        max_episode_steps: Time limit, at least 1.
        render_mode: `rgb_array` or None.

    Raises:
        ValueError: If a value is out of its range.

    References:
        After the gathering tasks of Barreto et al. 2017, "Successor Features for Transfer in
        Reinforcement Learning", section 5, https://arxiv.org/abs/1606.05312.
    """

    metadata = VECTOR_METADATA

    def __init__(
        self,
        num_envs: int = 1,
        worth: Sequence[float] = (1.0, 0.0),
        field: Sequence[str] = FIELD,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
    ) -> None:
        require(num_envs >= 1, "num_envs", "be at least 1", num_envs)
        require(max_episode_steps >= 1, "max_episode_steps", "be at least 1", max_episode_steps)
        cells = "".join(field)
        kinds = sorted(set(cells) - {FREE})
        must = "have rows of one length, with free cells and things"
        is_field = len({len(row) for row in field}) == 1 and FREE in cells and bool(kinds)
        require(is_field, "field", must, list(field))
        must = f"hold a number for each of the kinds {kinds}"
        require(len(worth) == len(kinds), "worth", must, list(worth))
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.render_mode = render_mode
        self.shape = (len(field), len(field[0]))
        self.worth = np.array(worth, np.float32)
        self._things = np.array([cell for cell, mark in enumerate(cells) if mark != FREE])
        self._free = np.array([cell for cell, mark in enumerate(cells) if mark == FREE])
        self._is_kind = np.array([[cells[cell] == kind for kind in kinds] for cell in self._things])
        self.single_action_space = spaces.Discrete(len(MOVES))
        size = len(cells) + len(self._things)
        self.single_observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._cell = np.zeros(num_envs, np.int64)
        self._left = np.ones((num_envs, len(self._things)), bool)
        self._step = np.zeros(num_envs, np.int64)
        # Before the first reset every episode counts as over, so that a step would start it.
        self._over = np.ones(num_envs, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start new episodes everywhere and return their observations.

        Args:
            seed: Seed of the generator, or None to draw on.
            options: Ignored.
        """
        super().reset(seed=seed)
        self._start(np.ones(self.num_envs, bool))
        self._over = np.zeros(self.num_envs, bool)
        return self._observe(), {
            "cumulants": np.zeros((self.num_envs, len(self.worth)), np.float32)
        }

    def step(self, actions: Integers) -> StepResult:
        """Walk everywhere by `actions`, [num_envs] in 0..3.

        Returns:
            Observations, rewards, `terminated`, `truncated`, each [num_envs, ...], and `info`; all
            of them new.
        """
        actions = self._checked(actions)
        over = self._over
        place = np.stack(np.unravel_index(self._cell, self.shape), -1) + MOVES[actions]
        row, column = np.clip(place, 0, np.array(self.shape) - 1).T
        self._cell = np.ravel_multi_index((row, column), self.shape)
        taken = (self._things == self._cell[:, None]) & self._left & ~over[:, None]
        self._left &= ~taken
        self._step += 1
        terminated = ~self._left.any(1) & ~over
        truncated = (self._step >= self.max_episode_steps) & ~terminated & ~over
        if over.any():
            self._start(over)
        self._over = terminated | truncated
        cumulants = (taken @ self._is_kind).astype(np.float32)
        return (
            self._observe(),
            cumulants @ self.worth,
            terminated,
            truncated,
            {"cumulants": cumulants},
        )

    def render(self) -> tuple[RenderFrame, ...] | None:
        """Return the first field's picture, uint8 [., ., 3] in a tuple, or None without a mode."""
        if self.render_mode is None:
            return None
        kinds = np.full(self.shape, -1)
        things = self._things[self._left[0]]
        kinds.flat[things] = self._is_kind[self._left[0]].argmax(1)
        return (render_frame(kinds, int(self._cell[0])),)

    def get_state(self) -> dict[str, Any]:
        """Return a copy of all that `set_state` needs to continue exactly from here."""
        state = {name: getattr(self, name).copy() for name in ("_cell", "_left", "_step", "_over")}
        return {**state, "generator": self.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly from what `get_state` returned for the same `num_envs`."""
        for name in ("_cell", "_left", "_step", "_over"):
            setattr(self, name, state[name].copy())
        self.np_random.bit_generator.state = state["generator"]

    def _start(self, where: NDArray[np.bool_]) -> None:
        self._cell[where] = self.np_random.choice(self._free, int(where.sum()))
        self._left[where] = True
        self._step[where] = 0

    def _observe(self) -> NDArray[np.float32]:
        walker = np.arange(self.shape[0] * self.shape[1]) == self._cell[:, None]
        return np.concatenate([walker, self._left], 1).astype(np.float32)

    def _checked(self, actions: Integers) -> Integers:
        actions = np.asarray(actions)
        shape = (self.num_envs,)
        require(actions.shape == shape, "actions", f"have shape {shape}", actions.shape)
        is_move = bool(np.isin(actions, range(len(MOVES))).all())
        require(is_move, "actions", f"lie in 0..{len(MOVES) - 1}", actions)
        return actions
