"""Stochastic policies that follow from action values."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mtdqn.functional.masking import mask_actions


def softmax_policy(q_values: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Return the probabilities of actions that maximise value plus `temperature` times entropy.

    Args:
        q_values: [..., A].
        temperature: In the unit of the values, above 0. Larger is more uniform.
        mask: True where allowed, broadcastable to `q_values`; forbidden actions get 0.

    Returns:
        Float32 [..., A], which sum to 1.
    """
    return (mask_actions(q_values.float(), mask) / temperature).softmax(-1)


def soft_value(q_values: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Return what `softmax_policy` is worth, `temperature` times its entropy included.

    `temperature * log sum over a of exp(q(a) / temperature)`, which at low temperatures is the
    largest value.

    Args:
        q_values: [..., A].
        temperature: In the unit of the values, above 0. Larger adds more.
        mask: True where allowed, broadcastable to `q_values`.

    Returns:
        Float32 [...].
    """
    scaled = mask_actions(q_values.float(), mask) / temperature
    return temperature * torch.logsumexp(scaled, -1)


def log_policy(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return logarithms of the probabilities of a softmax, and 0 at forbidden actions.

    There the logarithm of their probability is minus infinity, and its product with 0 no number.

    Args:
        logits: [..., A].
        mask: True where allowed, broadcastable to `logits`; None allows all.

    Returns:
        Float32 [..., A], at most 0.
    """
    found = mask_actions(logits.float(), mask).log_softmax(-1)
    return found if mask is None else found.masked_fill(~mask, 0.0)


def scaled_log_policy(q_values: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Return `temperature` times the logarithm of `softmax_policy`.

    Its limit at low temperatures is the value minus the largest value. Minus infinity at forbidden
    actions.

    Args:
        q_values: [..., A].
        temperature: In the unit of the values, above 0.
        mask: True where allowed, broadcastable to `q_values`.

    Returns:
        Float32 [..., A], at most 0.
    """
    return temperature * (mask_actions(q_values.float(), mask) / temperature).log_softmax(-1)
