"""What training episodes say about the scale of a task's values."""

from __future__ import annotations

from typing import NamedTuple


class ReturnSums(NamedTuple):
    """Sums over the transitions and finished training episodes of one task.

    Rewards are as the learner sees them: clipped where the task says so, and scaled by nothing.

    Attributes:
        steps: Transitions of single steps.
        reward: Their rewards.
        reward_square: Squares of these.
        discount: Their discounts, gamma or 0 where the episode terminated.
        discount_square: Squares of these.
        returns: Discounted returns of finished episodes, one from each of their steps.
        return_square: Squares of these.
        largest_return: The largest absolute one; a maximum, not a sum.
    """

    steps: float = 0.0
    reward: float = 0.0
    reward_square: float = 0.0
    discount: float = 0.0
    discount_square: float = 0.0
    returns: float = 0.0
    return_square: float = 0.0
    largest_return: float = 0.0
