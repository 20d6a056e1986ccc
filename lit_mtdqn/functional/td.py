"""Temporal-difference targets, errors and losses of single transitions.

Nothing here is reduced, and nothing knows gamma or an episode's end: each transition carries its
own `discount`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mtdqn.functional.masking import mask_actions


def gather_actions(values: Tensor, action: Tensor) -> Tensor:
    """Return the value of each row's action.

    Args:
        values: [..., A].
        action: Integers [...].

    Returns:
        [...].
    """
    return values.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def follow(values: Tensor, choice: Tensor) -> Tensor:
    """Return what each row's choice of actions is worth.

    Args:
        values: Numbers [..., A] or rows of numbers [..., A, Z], such as quantiles.
        choice: Actions, integers [...], or a policy, probabilities [..., A], over which `values`
            are averaged.

    Returns:
        [...] or [..., Z].
    """
    if choice.is_floating_point():
        axis = choice.dim() - 1
        weight = choice if values.dim() == choice.dim() else choice.unsqueeze(-1)
        return (weight * values).sum(axis)
    if values.dim() == choice.dim() + 1:
        return gather_actions(values, choice)
    index = choice[..., None, None].expand(*choice.shape, 1, values.shape[-1])
    return values.gather(-2, index).squeeze(-2)


def greedy_actions(q_values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return each row's allowed action of largest value; the first of equals.

    Args:
        q_values: [..., A].
        mask: True where allowed, broadcastable to `q_values`.
    """
    return mask_actions(q_values, mask).argmax(-1)


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """Return `reward + discount * next_value`.

    With `next_value` the largest target value this is the target of DQN; with the target network's
    value of the online network's greedy action, that of Double DQN.

    Args:
        reward: Folded rewards, [...].
        discount: Zero where the episode terminated, [...].
        next_value: Value of the state after the folded steps, [...].

    Raises:
        ValueError: If the shapes differ, which would broadcast silently.

    References:
        Mnih et al. 2015, "Human-level control through deep reinforcement learning", equation 1.
        van Hasselt et al. 2016, "Deep Reinforcement Learning with Double Q-learning",
        https://arxiv.org/abs/1509.06461.
    """
    if not reward.shape == discount.shape == next_value.shape:
        shapes = [tuple(tensor.shape) for tensor in (reward, discount, next_value)]
        raise ValueError(
            f"`reward`, `discount` and `next_value` must have one shape. Got {shapes}."
        )
    return reward + discount * next_value


def regression_loss(prediction: Tensor, target: Tensor, *, huber_delta: float | None) -> Tensor:
    """Return half the squared error, or its Huber form, without reduction.

    The half makes the Huber loss of a large delta equal to it.

    Args:
        prediction: [...].
        target: [...]; receives no gradient.
        huber_delta: Error at which the loss turns linear; None never turns.

    Raises:
        ValueError: If the shapes differ.
    """
    if prediction.shape != target.shape:
        shapes = (tuple(prediction.shape), tuple(target.shape))
        raise ValueError(f"`prediction` and `target` must have one shape. Got {shapes}.")
    # The squared error is a Huber loss that never turns, in one operation.
    delta = math.inf if huber_delta is None else huber_delta
    return F.huber_loss(prediction, target.detach(), reduction="none", delta=delta)


def action_gap(q_values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the best value minus the second best of the allowed actions; 0 for one action.

    Args:
        q_values: [..., A].
        mask: True where allowed, broadcastable to `q_values`.

    Returns:
        [...], at least 0.
    """
    if q_values.shape[-1] < 2:
        return q_values.new_zeros(q_values.shape[:-1])
    best, second = mask_actions(q_values, mask).topk(2, dim=-1).values.unbind(-1)
    return torch.where(second.isinf(), torch.zeros_like(best), best - second)
