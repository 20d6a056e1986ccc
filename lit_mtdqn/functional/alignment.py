"""How far two domains are apart in what a network makes of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lit_mtdqn.functional.precision import full_precision
from lit_mtdqn.types import require

# The widest kernel of the mixture in units of the median; each other is half as wide as the next.
WIDEST = 4.0
KERNELS = 5
# Rows that lie closer than this share of their squared length are told apart by rounding alone.
RESOLUTION = 1e-6
SMALLEST = 1e-12


def squared_distances(rows: Tensor) -> Tensor:
    """Return the squared Euclidean distance of every two rows, at least 0, float32 [N, N].

    Args:
        rows: [N, F].
    """
    rows = rows.float()
    with full_precision(rows.device):
        # About their mean, where the squares that cancel are small.
        centred = rows - rows.mean(0)
        square = centred.square().sum(1)
        return (square.unsqueeze(1) + square - 2.0 * centred @ centred.T).clamp(min=0.0)


@torch.no_grad()
def median_distance(rows: Tensor, distances: Tensor) -> Tensor:
    """Return the median of the squared distances between different rows, above 0, [].

    The lower one of an even number. At least a millionth of the rows' mean squared length, lest a
    kernel tell alike rows apart by their rounding.

    Args:
        rows: [N, F], N at least 2.
        distances: Of `squared_distances`.

    References:
        Gretton et al. 2012, "A Kernel Two-Sample Test", section 8.
    """
    number = len(rows)
    pairs = torch.triu_indices(number, number, 1, device=rows.device)
    least = RESOLUTION * rows.float().square().sum(1).mean() + SMALLEST
    return torch.maximum(distances[pairs[0], pairs[1]].median(), least)


def mmd_squared(source: Tensor, target: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy of two samples, unbiased, [].

    `E k(x, x') + E k(y, y') - 2 E k(x, y)` over pairs of different rows, with the kernel
    `k(x, y) = mean over c of exp(-|x - y|^2 / (c m))`, c in {1/4, 1/2, 1, 2, 4}, and m the median
    squared distance between the rows of both samples, which receives no gradient. At most 2, 0 in
    expectation where both are of one distribution, and so a little below 0 now and then. The biased
    estimate, which also pairs rows with themselves, would never be, but its gradient would pull
    each sample together, the more so the fewer rows there are.

    Args:
        source: x, [N, F], N at least 2.
        target: y, [M, F], M at least 2.

    Raises:
        ValueError: If a sample has less than 2 rows.

    References:
        Gretton et al. 2012, "A Kernel Two-Sample Test", equation 3; Long et al. 2015, "Learning
        Transferable Features with Deep Adaptation Networks", https://arxiv.org/abs/1502.02791.
    """
    _require_pairs(source, target)
    rows = torch.cat([source, target]).float()
    distances = squared_distances(rows)
    # Halving a width squares the kernel: one exponential serves all.
    kernel = (-distances / (WIDEST * median_distance(rows, distances))).exp()
    mixture = kernel
    for _ in range(KERNELS - 1):
        kernel = kernel.square()
        mixture = mixture + kernel
    mixture = mixture / KERNELS
    count = len(source)
    own = _off_diagonal_mean(mixture[:count, :count])
    others = _off_diagonal_mean(mixture[count:, count:])
    return own + others - 2.0 * mixture[:count, count:].mean()


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance of two samples' covariances, `|C_s - C_t|^2 / (4 F^2)`, [].

    It says nothing of their means.

    Args:
        source: [N, F], N at least 2.
        target: [M, F], M at least 2.

    Raises:
        ValueError: If a sample has less than 2 rows.

    References:
        Sun and Saenko 2016, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation",
        equations 1 to 3, https://arxiv.org/abs/1607.01719.
    """
    _require_pairs(source, target)
    difference = _covariance(source) - _covariance(target)
    return difference.square().sum() / (4.0 * source.shape[1] ** 2)


def reverse_gradient(values: Tensor, factor: float) -> Tensor:
    """Return values as they are; their gradient is multiplied by `-factor` on its way back.

    Args:
        values: Any shape.
        factor: At least 0; 0 lets no gradient through.

    References:
        Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks", equations 14 and 15,
        https://arxiv.org/abs/1505.07818.
    """
    reversed_: Tensor = _ReversedGradient.apply(values, factor)  # type: ignore[no-untyped-call]
    return reversed_


def domain_loss(source: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of a classifier of domains, each of which counts for a half, [].

    `log 2` = 0.693 for one that cannot tell them apart.

    Args:
        source: Logits of being of the target domain, for rows of a source, [N].
        target: The same for rows of the target, [M].
    """
    losses = [
        binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits.float(), truth))
        for logits, truth in ((source, 0.0), (target, 1.0))
    ]
    return (losses[0] + losses[1]) / 2.0


def similarity_weights(mmd: Tensor, sharpness: float) -> Tensor:
    """Return the weight of every source, `exp(-sharpness mmd)` over their sum, [S].

    Args:
        mmd: Squared discrepancy of each source to the target, [S].
        sharpness: At least 0. Larger trusts the nearest source alone; 0 trusts all alike.

    References:
        Duan et al. 2009, "Domain Adaptation from Multiple Sources via Auxiliary Classifiers",
        section 3.
    """
    return (-sharpness * mmd.float()).softmax(0)


class _ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


def _covariance(rows: Tensor) -> Tensor:
    """Return the unbiased covariance of rows [N, F], [F, F]."""
    rows = rows.float()
    with full_precision(rows.device):
        centred = rows - rows.mean(0)
        return centred.T @ centred / (len(rows) - 1)


def _off_diagonal_mean(square: Tensor) -> Tensor:
    number = len(square)
    return (square.sum() - square.diagonal().sum()) / (number * (number - 1))


def _require_pairs(source: Tensor, target: Tensor) -> None:
    for name, rows in (("source", source), ("target", target)):
        require(len(rows) >= 2, name, "have at least 2 rows", len(rows))
