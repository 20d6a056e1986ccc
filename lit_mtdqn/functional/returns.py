"""Folding of several env steps into one transition."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.functional.arrays import namespace_of
from lit_mtdqn.types import Array


class Folded(NamedTuple):
    """Transitions that start at each row of a window, arrays [L, ...].

    Attributes:
        reward: Discounted sum of the folded rewards.
        discount: Gamma to the number of folded steps; zero where a terminal step was folded.
        last: Row whose `next_observation` the transition ends with.
        complete: Whether the fold is finished; else rows after the window are still needed.
    """

    reward: Array
    discount: Array
    last: Array
    complete: Array


def fold_n_step(
    reward: Array,
    terminated: Array,
    truncated: Array,
    *,
    gamma: Array | float,
    n_step: Array | int,
    horizon: int | None = None,
) -> Folded:
    """Fold up to `n_step` rewards from each row on, never across the end of an episode.

    A fold ends after `n_step` rows, or earlier at a terminated row (discount 0) or a truncated row
    (discount gamma to the number of rows folded so far).

    Args:
        reward: Time-ordered rewards, [L, ...].
        terminated: [L, ...].
        truncated: [L, ...].
        gamma: Discount per step, broadcastable to [...]; or of each row, [L, ...].
        n_step: Largest number of rows per fold, broadcastable to [...].
        horizon: The largest `n_step`, which tensors would have to be asked for; None looks.

    References:
        Sutton 1988, "Learning to Predict by the Methods of Temporal Differences"; Hessel et al.
        2018, "Rainbow", section "Multi-step learning", https://arxiv.org/abs/1710.02298.
    """
    xp, length = namespace_of(reward), reward.shape[0]
    horizon = int(np.max(n_step)) if horizon is None else horizon
    ended = terminated | truncated
    of_rows: Any = gamma if np.ndim(gamma) == reward.ndim else None
    folded_reward = xp.zeros_like(reward, dtype=xp.float32)
    discount = xp.ones_like(reward, dtype=xp.float32)
    last = xp.cumsum(xp.ones_like(reward, dtype=xp.int64), 0) - 1
    going = xp.ones_like(reward, dtype=xp.bool)
    for step in range(min(horizon, length)):
        rows = slice(0, length - step)
        here = going[rows]
        folded_reward[rows] += xp.where(here, discount[rows] * reward[step:], 0.0)
        own = gamma if of_rows is None else of_rows[step:]
        factor = xp.where(terminated[step:], 0.0, own)
        discount[rows] = xp.where(here, discount[rows] * factor, discount[rows])
        last[rows] += here & (step > 0)
        going[rows] = here & ~ended[step:] & (n_step > step + 1)
    return Folded(folded_reward, discount, last, ~going)


def discounted_returns(reward: Array, gamma: float, rest: float = 0.0) -> Array:
    """Return the discounted sum of rewards from each step on, float64 [L].

    Args:
        reward: Of the steps of one episode, [L].
        gamma: Discount per step.
        rest: Value of what comes after the last step.
    """
    returns = np.empty(len(reward))
    following = rest
    for step in range(len(reward) - 1, -1, -1):
        following = reward[step] + gamma * following
        returns[step] = following
    return returns


def lambda_returns(
    reward: Tensor, discount: Tensor, next_value: Tensor, goes_on: Tensor, trace_decay: float
) -> Tensor:
    """Return mixtures of all n-step returns of time-ordered rows, [L, ...].

    `G_t = r_t + discount_t ((1 - lambda) v_t + lambda G_{t+1})` where row t + 1 goes on from row t,
    and `r_t + discount_t v_t` where it does not, as at the last row.

    Args:
        reward: [L, ...].
        discount: Gamma, zero where the episode terminated, [L, ...].
        next_value: Value v of each row's next state, [L, ...].
        goes_on: Whether the next row is the same episode's next step, [L, ...]; that of the last
            row does not matter.
        trace_decay: Lambda in [0, 1]: 0 looks one step ahead, 1 as far as the rows go.

    References:
        Peng and Williams 1996, "Incremental Multi-Step Q-Learning", equation 7; Gallici et al.
        2025, "Simplifying Deep Temporal Difference Learning", equation 8,
        https://arxiv.org/abs/2407.04811.
    """
    returns = torch.empty_like(next_value)
    returns[-1] = reward[-1] + discount[-1] * next_value[-1]
    for row in range(len(reward) - 2, -1, -1):
        mixed = torch.lerp(next_value[row], returns[row + 1], trace_decay)
        following = torch.where(goes_on[row], mixed, next_value[row])
        returns[row] = reward[row] + discount[row] * following
    return returns
