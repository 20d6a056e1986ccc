"""Weights over experts: how they are drawn, balanced, measured, and made to span."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-12


def straight_through_one_hot(logits: Tensor, temperature: Tensor | float) -> Tensor:
    """Return one-hot weights of the largest logits whose gradient is that of a softmax.

    With standard Gumbel noise added to the logits, the choice is a draw from their softmax. The
    gradient is biased, the less so the lower the temperature, and noisier.

    Args:
        logits: [..., E].
        temperature: Of the softmax that the gradient is taken from, above 0.

    Returns:
        [..., E], one 1 in each row.

    References:
        Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax", section 2.2,
        https://arxiv.org/abs/1611.01144.
    """
    soft = (logits / temperature).softmax(-1)
    hard = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())


def load_balance_loss(router: Tensor) -> Tensor:
    """Return how unevenly experts are used: 1 if all are used alike, E if one does everything.

    `E * sum over e of f_e P_e`, with f the share of rows whose largest weight is the expert's, and
    P its mean weight; the gradient flows through P.

    Args:
        router: Weights that sum to 1, [..., E].

    Returns:
        [].

    References:
        Fedus et al. 2021, "Switch Transformers", equation 4 without alpha,
        https://arxiv.org/abs/2101.03961.
    """
    experts = router.shape[-1]
    weights = router.reshape(-1, experts)
    chosen = F.one_hot(weights.detach().argmax(-1), experts).to(weights.dtype)
    loss: Tensor = experts * (chosen.mean(0) * weights.mean(0)).sum()
    return loss


def router_entropy(router: Tensor) -> Tensor:
    """Return the entropy of each row's weights, in nats: 0 for one expert, log E for all alike.

    Args:
        router: Weights that sum to 1, [..., E].

    Returns:
        [...].
    """
    entropy: Tensor = torch.special.entr(router).sum(-1)
    return entropy


def expert_usage(router: Tensor, task: Tensor, num_tasks: int) -> Tensor:
    """Return the mean weight that each task gives to each expert.

    Args:
        router: [S, B, E].
        task: Task of each group, [S].
        num_tasks: T.

    Returns:
        [T, E]; rows of tasks that are not in the batch are 0.
    """
    usage = router.new_zeros(num_tasks, router.shape[-1])
    groups = torch.zeros(num_tasks, dtype=router.dtype, device=router.device)
    groups.index_add_(0, task, torch.ones_like(task, dtype=router.dtype))
    usage.index_add_(0, task, router.mean(1))
    return usage / groups.clamp(min=1.0).unsqueeze(-1)


def gram_schmidt(vectors: Tensor) -> Tensor:
    """Return orthonormal vectors that span what the vectors span, in float32.

    The first keeps its direction, every next one loses what lies along those before it. A vector
    that lies in their span becomes nearly 0, and lengthens a gradient by a factor of 1e6 at most.

    Args:
        vectors: E vectors of F numbers at each of N places, [E, N, F], E at most F.

    Returns:
        [E, N, F].
    """
    rest = vectors.float()
    found = []
    while len(rest) > 0:
        squared = rest[0].square().sum(-1, keepdim=True)
        direction = rest[0] * torch.rsqrt(squared + EPS)
        found.append(direction)
        rest = rest[1:]
        if len(rest) > 0:
            rest = rest - (rest * direction).sum(-1, keepdim=True) * direction
    return torch.stack(found)
