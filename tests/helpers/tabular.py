"""Finite Markov decision processes, solved exactly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class FiniteMDP(NamedTuple):
    """A process of S states and A actions.

    Attributes:
        transition: Probability of each next state, [S, A, S]; what a row lacks to 1 is the
            probability that the episode terminates.
        reward: Expected reward, [S, A].
        gamma: Discount per step.
    """

    transition: Floats
    reward: Floats
    gamma: float

    def backup(self, value: Floats) -> Floats:
        """Return the action values [S, A] of one step followed by `value`, [S]."""
        following: Floats = self.transition @ value
        return self.reward + self.gamma * following

    def policies(self) -> Iterator[Ints]:
        """Yield every deterministic policy, actions [S]."""
        states, actions = self.reward.shape
        for policy in product(range(actions), repeat=states):
            yield np.array(policy)


def random_mdp(
    seed: int, *, states: int = 5, actions: int = 3, gamma: float = 0.9, termination: float = 0.1
) -> FiniteMDP:
    """Return a process with random transitions and normally distributed rewards."""
    generator = np.random.default_rng(seed)
    transition = generator.dirichlet(np.ones(states), (states, actions)) * (1.0 - termination)
    return FiniteMDP(transition, generator.normal(size=(states, actions)), gamma)


def policy_value(mdp: FiniteMDP, policy: Ints) -> Floats:
    """Return the value [S] of following a deterministic policy, by solving its linear system."""
    states = np.arange(len(policy))
    transition = mdp.transition[states, policy]
    system = np.eye(len(policy)) - mdp.gamma * transition
    return np.linalg.solve(system, mdp.reward[states, policy]).astype(np.float64)


def optimal_q(mdp: FiniteMDP, tolerance: float = 1e-12) -> Floats:
    """Return the optimal action values [S, A], by value iteration."""
    q_values = np.zeros_like(mdp.reward)
    while True:
        improved = mdp.backup(q_values.max(-1))
        if np.abs(improved - q_values).max() <= tolerance:
            return improved
        q_values = improved
