"""Actions in proportion to how good they look."""

from __future__ import annotations

import numpy as np

from lit_mtdqn.rollout.exploration import EpsilonGreedy
from lit_mtdqn.types import require

Array = np.ndarray
# Stands for 0 in divisions.
SMALLEST = np.finfo(np.float64).tiny


class Boltzmann(EpsilonGreedy):
    """Takes each allowed action with a probability proportional to `exp(value / temperature)`.

    Unlike epsilon-greedy it rarely takes what looks bad, but what is rare depends on the scale of
    the values; `relative` takes that scale from the values themselves. With probability epsilon it
    still takes any allowed action; `EpsilonDecay(start=0, end=0)` turns that off after warm-up.

    Args:
        temperature: In the unit of action values, above 0. Larger is more random.
        relative: Whether the temperature is a multiple of the task's action gap, that is of the
            mean difference between the best and the second best action of its environments at that
            step.

    Raises:
        ValueError: If `temperature` is not above 0.

    References:
        Kaelbling et al. 1996, "Reinforcement Learning: A Survey", on randomised strategies,
        https://arxiv.org/abs/cs/9605103.
    """

    def __init__(self, temperature: float = 0.1, relative: bool = False) -> None:
        require(temperature > 0.0, "temperature", "be above 0", temperature)
        super().__init__()
        self.temperature = temperature
        self.relative = relative

    def act(self, q_values: Array | None, mask: Array, epsilon: Array, draws: Array) -> Array:
        """Return actions [S, N]."""
        explored: Array = self.select(None, mask, epsilon, draws)
        if q_values is None:
            return explored
        temperature = np.full(len(epsilon), self.temperature)
        drawn = self.draw(q_values, mask, temperature, draws, relative=self.relative)
        actions: Array = np.where(draws[0] < epsilon[:, None], explored, drawn)
        return actions

    @staticmethod
    def draw(
        q_values: Array,
        mask: Array,
        temperature: Array,
        draws: Array,
        *,
        relative: bool = False,
    ) -> Array:
        """Return actions [S, N].

        Args:
            q_values: [S, N, A].
            mask: Allowed actions, [S, N, A] or [S, 1, A].
            temperature: By task, [S], at least 0. At 0 the action is the best, or one of the best;
                at infinity all are equally likely.
            draws: Uniform numbers in [0, 1), [2, S, N], the second of which choose the actions;
                the first are those by which epsilon-greedy decides whether to explore.
            relative: Whether temperatures are multiples of the task's mean action gap.
        """
        choice = draws[1]
        mask = np.broadcast_to(mask, (*choice.shape, mask.shape[-1]))
        logits = np.where(mask, q_values.astype(np.float64), -np.inf)
        logits = logits - logits.max(-1, keepdims=True)
        if relative:
            temperature = temperature * _mean_gap(logits)
        scale = np.maximum(temperature, SMALLEST)[:, None, None]
        with np.errstate(over="ignore"):
            weight = np.exp(np.where(mask, logits, 0.0) / scale) * mask
        reached = weight.cumsum(-1)
        action: Array = (reached > choice[..., None] * reached[..., -1:]).argmax(-1)
        return action


def _mean_gap(logits: Array) -> Array:
    """Return by task how far the second best action is below the best, above 0, [S]."""
    second = np.sort(logits, axis=-1)[..., -2:-1]
    # Where a single action is allowed there is no second one.
    distance = -np.where(np.isfinite(second), second, 0.0).sum(-1)
    gap: Array = np.maximum(distance.mean(-1), SMALLEST)
    return gap
