"""Penalties that hold parameters near others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Penalty(NamedTuple):
    """Half the squared distance to a centre, each number by its importance, plus its least value.

    `least + sum over i of importance_i / 2 (theta_i - centre_i)^2`

    Attributes:
        centre: [P].
        importance: At least 0, [P]; numbers of importance 0 are free.
        least: Its value at the centre, [].
    """

    centre: Tensor
    importance: Tensor
    least: Tensor

    def __call__(self, parameters: Tensor) -> Tensor:
        """Return the penalty [] of parameters [P]."""
        return self.least + _half_square(self.importance, parameters - self.centre)


def penalty_around(centres: Tensor, importances: Tensor) -> Penalty:
    """Return the sum of penalties around several centres as one.

    A sum of quadratics is a quadratic around the mean of their centres, by importance: N centres
    cost an update no more than one.

    Args:
        centres: [N, P].
        importances: At least 0, [N, P].

    References:
        Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks",
        equation 3, https://arxiv.org/abs/1612.00796, a term for each earlier task.
    """
    total = importances.sum(0)
    shares = importances / total.clamp_min(torch.finfo(total.dtype).tiny)
    centre = (shares * centres).sum(0)
    return Penalty(centre, total, _half_square(importances, centres - centre))


def _half_square(importance: Tensor, distance: Tensor) -> Tensor:
    return 0.5 * (importance * distance.square()).sum()
