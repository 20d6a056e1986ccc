"""Which action to take, given action values."""

from __future__ import annotations

import numpy as np

from lit_mtdqn.types import Schedule, value_at

Array = np.ndarray


class EpsilonGreedy:
    """Takes the greedy action, or with probability epsilon a random allowed one.

    Every environment draws for itself at every step.

    Args:
        epsilon: Probability, or a schedule of it over the task's own env steps.
    """

    def __init__(self, epsilon: float | Schedule = 0.05) -> None:
        self.epsilon = epsilon

    def epsilon_at(self, env_steps: int, warmup_env_steps: int = 0) -> float:
        """Return a task's epsilon after so many of its env steps; 1 during warm-up."""
        return 1.0 if env_steps < warmup_env_steps else value_at(self.epsilon, env_steps)

    @staticmethod
    def select(
        q_values: Array | None, mask: Array, epsilon: Array, generator: np.random.Generator
    ) -> Array:
        """Return actions [S, N].

        Args:
            q_values: [S, N, A]; may be None if every epsilon is 1.
            mask: Allowed actions, [S, N, A] or [S, 1, A].
            epsilon: Probability of a random action by task, [S].
            generator: Source of all draws; the number of draws does not depend on their results.
        """
        mask = np.broadcast_to(mask, mask.shape if q_values is None else q_values.shape)
        noise = generator.random(mask.shape, np.float32)
        explored: Array = np.where(mask, noise, -1.0).argmax(-1)
        coin = generator.random(mask.shape[:2])
        if q_values is None:
            return explored
        greedy = np.where(mask, q_values, -np.inf).argmax(-1)
        return np.where(coin < epsilon[:, None], explored, greedy)
