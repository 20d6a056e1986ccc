"""Diagonals of the Fisher information: how much each parameter matters for what a network says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_mtdqn.functional.gradients import as_matrix
from lit_mtdqn.functional.masking import mask_actions

FisherKind = Literal["policy", "values"]


def fisher_terms(
    kind: FisherKind,
    q_values: Tensor,
    temperature: Tensor | float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what is differentiated for each action, and the weight of its squared gradient.

    With them the diagonal is `sum over actions of weight * (d term / d parameter)^2`, a mean over
    states:

    - `policy`: of the distribution softmax(Q / temperature) over actions. Terms are its log
      probabilities, weights its probabilities: the expectation over actions is exact, and no action
      of the replay is taken for the policy's. It knows neither the unit of values nor what is
      added to all values of a state.
    - `values`: of values known up to a normal error of variance 1. Terms are the values, all
      allowed actions weigh alike. It grows with the square of the values' unit.

    Args:
        kind: One of these.
        q_values: [..., A].
        temperature: Above 0, a number or broadcastable to `q_values`; of `policy` alone. Lower
            counts only states where actions are nearly equal.
        mask: True where an action is allowed, broadcastable to `q_values`; None allows all.

    Returns:
        Terms and weights, [..., A]. Weights have no gradient and are 0 where forbidden.

    References:
        Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", section
        2.1, https://arxiv.org/abs/1612.00796; van de Ven 2025, "On the Computation of the Fisher
        Information in Continual Learning", https://arxiv.org/abs/2502.11756 (the exact form).
    """
    match kind:
        case "policy":
            log_policy = mask_actions(q_values / temperature, mask).log_softmax(-1)
            return log_policy, log_policy.detach().exp()
        case "values":
            allowed = torch.ones_like(q_values) if mask is None else mask.expand_as(q_values)
            weights = allowed.to(q_values.dtype)
            return q_values, weights / weights.sum(-1, keepdim=True)


def fisher_sum(terms: Tensor, weights: Tensor, copies: Sequence[Tensor]) -> Tensor:
    """Return the diagonal of the Fisher information, summed over rows.

    Gradients are squared row by row: the square of a minibatch's mean gradient would be smaller by
    its size, and blind where rows pull against one another.

    Args:
        terms: [B, A].
        weights: [B, A]; actions that weigh nothing in any row cost nothing.
        copies: Parameters from which row b of the terms was computed at place b, [B, ...] each.

    Returns:
        [P], the parameters' numbers side by side.
    """
    total = terms.new_zeros(sum(copy[0].numel() for copy in copies))
    for action in weights.any(0).nonzero().flatten().tolist():
        gradients = torch.autograd.grad(
            terms[:, action].sum(),
            copies,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        total += weights[:, action] @ as_matrix(gradients).square()
    return total


def normalised_importance(importance: Tensor, counted: Tensor) -> Tensor:
    """Return importance of mean 1, so that tasks count alike whatever the size of their gradients.

    Args:
        importance: At least 0, [P].
        counted: Over which of them the mean is taken, Booleans [P]; if all of these are 0, nothing
            changes.

    References:
        Schwarz et al. 2018, "Progress & Compress", on online EWC, https://arxiv.org/abs/1805.06370.
    """
    mean = importance[counted].mean()
    return torch.where(mean > 0.0, importance / mean, importance)
