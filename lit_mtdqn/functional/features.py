"""How far what a student sees is from what a teacher sees."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# A teacher whose features have a smaller mean square shows nothing.
SMALLEST = 1e-6


def missed_share(found: Tensor, teacher: Tensor) -> Tensor:
    """Return squared distances between features, as shares of the teacher's mean square.

    A row's sum of squares, over its group's mean of the teacher's: 0 where they agree, about 1
    where nothing is known, and 0 in groups where the teacher shows nothing but zeros. Features
    padded with zeros on both sides count for nothing.

    Args:
        found: [S, B, F].
        teacher: [S, B, F]; receives no gradient.

    Returns:
        Float32 [S, B], at least 0.
    """
    wanted = teacher.detach().float()
    power = wanted.square().sum(-1).mean(-1, keepdim=True)
    missed = (found.float() - wanted).square().sum(-1) / power.clamp(min=SMALLEST)
    return torch.where(power < SMALLEST, 0.0, missed)


def attention_map(layer: Tensor) -> Tensor:
    """Return where a layer is active, as vectors of length 1.

    For outputs of convolutions the sum of squares over channels at each place; for others, which
    have no places, the square of each unit.

    Args:
        layer: [S, B, C, P] with P places, or [S, B, F].

    Returns:
        Float32 [S, B, P] or [S, B, F], at least 0.

    References:
        Zagoruyko and Komodakis 2017, "Paying More Attention to Attention", section 3.1, with p = 2,
        https://arxiv.org/abs/1612.03928.
    """
    squares = layer.float().square()
    return F.normalize(squares.sum(2) if layer.dim() == 4 else squares, dim=-1)


def attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance between attention maps, in [0, 2]: 0 for equal, 2 for apart.

    Args:
        student: A layer of the student, as of `attention_map`.
        teacher: One of the teacher with as many places or units; receives no gradient.

    Returns:
        Float32 [S, B].

    Raises:
        ValueError: If the maps are of unlike sizes.
    """
    maps = attention_map(student), attention_map(teacher.detach())
    if maps[0].shape != maps[1].shape:
        shapes = [tuple(found.shape) for found in maps]
        raise ValueError(f"`student` and `teacher` must have maps of one shape. Got {shapes}.")
    return torch.sub(*maps).square().sum(-1)
