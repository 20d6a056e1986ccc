"""How much of a network is in use, and how fast its policy changes."""

from __future__ import annotations

import torch
from torch import Tensor


def dormant_share(activations: Tensor, threshold: float = 0.025) -> Tensor:
    """Return the share of units that are hardly active beside the others of their layer, [].

    A unit is dormant where its mean absolute activation is at most `threshold` times the mean over
    the layer. All are where none is active.

    Args:
        activations: Of N inputs and H units, [N, H].
        threshold: At least 0. Larger calls more units dormant; 0 only those that are never active.

    References:
        Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning",
        definition 3.1, https://arxiv.org/abs/2302.12902.
    """
    activity = activations.abs().mean(0)
    return (activity <= threshold * activity.mean()).float().mean()


def effective_rank(features: Tensor, delta: float = 0.01) -> Tensor:
    """Return how many directions hold nearly all of the features' spectrum, [], a float32 count.

    The least k for which the k largest singular values sum to at least `1 - delta` of all. At most
    N and F; 0 for features of zeros, not a number where a feature is infinite or none.

    Args:
        features: Of N inputs, [N, F].
        delta: Part of the spectrum that is left out, in (0, 1). Larger counts fewer.

    References:
        Kumar et al. 2021, "Implicit Under-Parameterization Inhibits Data-Efficient Deep
        Reinforcement Learning", section 3, https://arxiv.org/abs/2010.14498.
    """
    if not bool(features.isfinite().all()):
        return features.new_full((), torch.nan, dtype=torch.float32)
    spectrum = torch.linalg.svdvals(features.float()).double().cumsum(0)
    below = (spectrum < (1.0 - delta) * spectrum[-1]).sum()
    rank: Tensor = below + (spectrum[-1] > 0.0)
    return rank.float()


def policy_churn(before: Tensor, after: Tensor) -> Tensor:
    """Return the share of states whose action has changed, [].

    Args:
        before: Greedy actions in some states, integers [...].
        after: The same later.

    References:
        Schaul et al. 2022, "The Phenomenon of Policy Churn", section 2,
        https://arxiv.org/abs/2206.00730.
    """
    return (before != after).float().mean()
