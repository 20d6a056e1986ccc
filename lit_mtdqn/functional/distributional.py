"""Distributions of returns: expectations, targets and losses of single transitions.

Nothing here is reduced over transitions, and everything is float32, because probabilities and
places on a support lose their meaning at lower precision. Z is the number of atoms, bins or
quantiles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Of a value, in the unit of networks: beyond it float32 does not tell tenths apart.
LARGEST = 1e6


def expected_value(probabilities: Tensor, support: Tensor) -> Tensor:
    """Return the mean of categorical distributions.

    Args:
        probabilities: [..., Z].
        support: Value of each atom, [Z].

    Returns:
        [...].
    """
    # No matrix product, which autocast would take to half precision.
    return (probabilities.float() * support.float()).sum(-1)


def project_categorical(
    probabilities: Tensor, reward: Tensor, discount: Tensor, support: Tensor
) -> Tensor:
    """Return the distribution of `reward + discount * Z'` on the support of `Z'`.

    Each moved atom shares its probability between the two atoms of the support beside it, the
    nearer one getting more; what leaves the support ends at its edge. Inside the support the mean
    is that of the moved distribution.

    Args:
        probabilities: Of the return from the next state on, [..., Z].
        reward: Folded rewards, [...].
        discount: Zero where the episode terminated, [...].
        support: Equally spaced, ascending, [Z].

    Returns:
        Probabilities [..., Z].

    Raises:
        ValueError: If the shapes do not fit, which would broadcast silently.

    References:
        Bellemare et al. 2017, "A Distributional Perspective on Reinforcement Learning",
        algorithm 1, https://arxiv.org/abs/1707.06887.
    """
    if (
        not probabilities.shape
        == (*reward.shape, *support.shape)
        == (*discount.shape, len(support))
    ):
        shapes = [tuple(t.shape) for t in (probabilities, reward, discount, support)]
        raise ValueError(
            "`probabilities`, `reward`, `discount` and `support` must have shapes [..., Z], [...], "
            f"[...] and [Z]. Got {shapes}."
        )
    probabilities, support = probabilities.float(), support.float()
    last = len(support) - 1
    moved = torch.addcmul(reward.float().unsqueeze(-1), discount.float().unsqueeze(-1), support)
    place = ((moved - support[0]) * (last / (support[-1] - support[0]))).clamp_(0.0, last)
    lower = place.floor().clamp_(max=last - 1)
    upper_share = probabilities * (place - lower)
    index = lower.long()
    projected = torch.zeros_like(probabilities)
    projected.scatter_add_(-1, index, probabilities - upper_share)
    return projected.scatter_add_(-1, index + 1, upper_share)


def project_hl_gauss(target: Tensor, edges: Tensor, sigma: float) -> Tensor:
    """Return how a normal distribution around each target spreads over bins.

    Targets are clipped to the range of the edges first, and the distribution is cut there and
    renormalised. The mean of the result is the target if that lies some `sigma` inside; at an edge
    it is `0.8 * sigma` further inside, so that a support needs a margin of a few bins.

    Args:
        target: [...].
        edges: Of the bins, ascending, [Z + 1].
        sigma: Standard deviation, above 0. Larger spreads a target over more bins.

    Returns:
        Probabilities [..., Z].

    References:
        Imani and White 2018, "Improving Regression Performance with Distributional Losses",
        https://arxiv.org/abs/1806.04613; Farebrother et al. 2024, "Stop Regressing: Training Value
        Functions via Classification for Scalable Deep RL", section 3, https://arxiv.org/abs/2403.03950.
    """
    edges = edges.float()
    mean = target.float().clamp(edges[0], edges[-1]).unsqueeze(-1)
    below = torch.erf((edges - mean) * (1.0 / (math.sqrt(2.0) * sigma)))
    return below.diff(dim=-1) / (below[..., -1:] - below[..., :1])


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy from target distributions to predicted ones.

    It is at least the entropy of the target, which no prediction changes: that of a single atom is
    0, that of HL-Gauss targets is not.

    Args:
        logits: Of the prediction, [..., Z].
        target: Probabilities [..., Z]; receives no gradient.

    Returns:
        [...].

    Raises:
        ValueError: If the shapes differ.
    """
    if logits.shape != target.shape:
        shapes = (tuple(logits.shape), tuple(target.shape))
        raise ValueError(f"`logits` and `target` must have one shape. Got {shapes}.")
    return -(target.detach().float() * logits.float().log_softmax(-1)).sum(-1)


def quantile_midpoints(count: int) -> Tensor:
    """Return the middles of equal parts of [0, 1], at which a mean of quantiles is least biased.

    Args:
        count: Number of parts, Z.

    Returns:
        [Z].
    """
    return (torch.arange(count, dtype=torch.float32) + 0.5) / count


def quantile_huber_loss(
    prediction: Tensor, fractions: Tensor, target: Tensor, *, huber_delta: float
) -> Tensor:
    """Return the quantile regression loss from predicted quantiles to target samples.

    Every pair of a prediction and a target counts. An error of `huber_delta` or more pulls with the
    prediction's fraction from above and with the rest from below; a smaller one pulls less. Summed
    over predictions, averaged over targets.

    Args:
        prediction: Quantiles [..., Z].
        fractions: Probability below each of them, in [0, 1], broadcastable to `prediction`.
        target: Samples or quantiles of the target distribution, [..., Z'], as many leading axes;
            receives no gradient.
        huber_delta: Error at which the loss turns linear, above 0. Larger moves the minimum from
            quantiles towards the mean.

    Returns:
        [...].

    Raises:
        ValueError: If the leading shapes differ.

    References:
        Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile Regression",
        equation 10, https://arxiv.org/abs/1710.10044; divided by the delta as in "Implicit Quantile
        Networks for Distributional Reinforcement Learning", https://arxiv.org/abs/1806.06923.
    """
    if prediction.shape[:-1] != target.shape[:-1]:
        shapes = (tuple(prediction.shape), tuple(target.shape))
        raise ValueError(f"`prediction` and `target` must differ in no leading axis. Got {shapes}.")
    # Expanded, because the fused loss then takes half the time of its parts.
    pairs = (*prediction.shape, target.shape[-1])
    predicted = prediction.float().unsqueeze(-1).expand(pairs)
    wanted = target.detach().float().unsqueeze(-2).expand(pairs)
    huber = F.huber_loss(predicted, wanted, reduction="none", delta=huber_delta)
    share = fractions.float().unsqueeze(-1)
    weight = torch.where(wanted < predicted, 1.0 - share, share)
    return (weight * huber).mean(-1).sum(-1) / huber_delta
