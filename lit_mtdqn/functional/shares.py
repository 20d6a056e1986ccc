"""Probabilities over tasks, and draws from them."""

from __future__ import annotations

import torch
from torch import Tensor


def floored_softmax(values: Tensor, temperature: float, floor: float) -> Tensor:
    """Return `floor / T + (1 - floor) softmax(values / temperature)`, float64 probabilities [T].

    The floor keeps every task alive: none falls below `floor / T`, whatever the values.

    Args:
        values: One number per task, [T]; larger is likelier.
        temperature: Above 0. Larger is closer to uniform.
        floor: Share that is spread evenly, in [0, 1].

    References:
        Sharma et al. 2018, "Learning to Multi-Task by Active Sampling",
        https://arxiv.org/abs/1702.06053.
    """
    values = values.double()
    return floor / len(values) + (1.0 - floor) * torch.softmax(values / temperature, 0)


def gumbel_top_k(
    probabilities: Tensor, k: int, draws: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return `draws` independent draws of k unlike entries, integers [draws, k].

    Each is what drawing one by one without replacement, in proportion to the probabilities of those
    that are left, would give: the k largest of log-probabilities with Gumbel noise.

    Args:
        probabilities: [T]; need not sum to 1.
        k: Entries of each draw, at most T.
        draws: Number of draws.
        generator: Source of the noise; None takes PyTorch's.

    References:
        Kool et al. 2019, "Stochastic Beams and Where to Find Them", section 2.3,
        https://arxiv.org/abs/1903.06059.
    """
    uniform = torch.rand(draws, len(probabilities), generator=generator, dtype=torch.float64)
    gumbel = -torch.log(-torch.log(uniform))
    return (probabilities.double().log() + gumbel).topk(k, -1).indices
