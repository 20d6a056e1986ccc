"""A chain of states small enough that its optimal values are known."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from helpers.tabular import FiniteMDP


class Move(NamedTuple):
    """What an action leads to."""

    state: int
    reward: float
    terminated: bool


class ChainEnv(gymnasium.Env[int, np.int64]):
    """Walks along a row of states from a random one; the goal lies beyond the last.

    Action 0 goes left, action 1 right; each further action stays and costs a little.

    Args:
        states: Number of states.
        actions: Number of actions.
        endless: Whether reaching the goal leads back to the first state instead of terminating.
    """

    def __init__(self, states: int = 5, actions: int = 2, endless: bool = False) -> None:
        self.observation_space = spaces.Discrete(states)  # type: ignore[assignment]
        self.action_space = spaces.Discrete(actions)
        self.states, self.actions, self.endless = states, actions, endless
        self.state = 0

    def move(self, state: int, action: int) -> Move:
        """Return what `action` does in `state`."""
        if action == 1 and state == self.states - 1:
            return Move(0, 1.0, not self.endless)
        if action >= 2:
            return Move(state, -0.1, False)
        return Move(max(state + 2 * action - 1, 0), 0.0, False)

    def mdp(self, gamma: float) -> FiniteMDP:
        """Return the chain as tables."""
        transition = np.zeros((self.states, self.actions, self.states))
        reward = np.zeros((self.states, self.actions))
        for state, action in np.ndindex(*reward.shape):
            following, reward[state, action], terminated = self.move(state, action)
            transition[state, action, following] = 1.0 - terminated
        return FiniteMDP(transition, reward, gamma)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Start in a random state."""
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(self.states))
        return self.state, {}

    def step(self, action: np.int64) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move."""
        self.state, reward, terminated = self.move(self.state, int(action))
        return self.state, reward, terminated, False, {}
