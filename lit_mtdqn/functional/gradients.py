"""Gradients of several tasks at once, and what they say about one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


class GroupParameters(dict[str, Tensor]):
    """Copies of shared parameters, one per row group and leaves of their own, [S, ...] by name.

    A forward pass that uses them gives each group's gradient in one backward pass: every row is
    back-propagated once, where a pass per task would send all rows through as often as there are
    tasks.
    """

    @classmethod
    def of(cls, parameters: Mapping[str, Tensor], groups: int) -> GroupParameters:
        """Return copies, without memory of their own, of parameters by name."""
        return cls(
            (name, parameter.detach().expand(groups, *parameter.shape).requires_grad_(True))
            for name, parameter in parameters.items()
        )

    def for_groups(self, groups: int) -> GroupParameters:
        """Return the copies for row groups beside those they were made for.

        Where the numbers differ all use the first copy: of a term that is no single task's, only
        the sum of the copies' gradients matters.
        """
        if all(len(copy) == groups for copy in self.values()):
            return self
        return GroupParameters(
            (name, copy[:1].expand(groups, *copy.shape[1:])) for name, copy in self.items()
        )


def group_means(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the values of each group, and which groups there are.

    Args:
        values: [S].
        group: Integers, [S]; in any order, repeats allowed.

    Returns:
        Means [G] and the groups' numbers [G], rising.
    """
    present, place = torch.unique(group, return_inverse=True)
    count = place.bincount(minlength=len(present))
    return values.new_zeros(len(present)).index_add(0, place, values) / count, present


def sums_by_task(rows: Tensor, task: Tensor, tasks: Tensor) -> Tensor:
    """Return the sums of the rows of each task, [T, P].

    Args:
        rows: [S, P].
        task: Task of each row, [S].
        tasks: Tasks in the order wanted, [T], rising.
    """
    place = torch.searchsorted(tasks, task)
    return rows.new_zeros(len(tasks), rows.shape[1]).index_add(0, place, rows)


def as_matrix(gradients: Iterable[Tensor]) -> Tensor:
    """Return gradients [S, ...] of several parameters side by side, [S, P]."""
    return torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)


def as_gradients(row: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return a row of such a matrix, [P], in the shapes of its parameters."""
    sizes = [parameter.numel() for parameter in parameters]
    pieces = zip(torch.split(row, sizes), parameters, strict=True)
    return [piece.view_as(parameter) for piece, parameter in pieces]


def gradient_cosines(matrix: Tensor) -> Tensor:
    """Return the cosine of the angle between every two rows, [T, T]; 0 for rows of zeros.

    Negative entries are conflicts: a small step for one task raises the other's loss.

    Args:
        matrix: [T, P].

    References:
        Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", definition 1,
        https://arxiv.org/abs/2001.06782.
    """
    norms = torch.linalg.vector_norm(matrix, dim=1)
    unit = matrix / norms.clamp_min(torch.finfo(matrix.dtype).tiny).unsqueeze(1)
    cosines: Tensor = unit @ unit.T
    return cosines.clamp(-1.0, 1.0)


def look_ahead_steps(loss: Tensor, gradient: Tensor, share: float) -> Tensor:
    """Return a step down each task's gradient that takes `share` of its loss, to first order.

    `step_i = -share L_i g_i / |g_i|^2`; zeros where there is no gradient or no loss.

    Args:
        loss: L, [T].
        gradient: g, [T, P].
        share: Part of each loss, above 0.

    Returns:
        [T, P], to be added to the parameters.
    """
    squared = gradient.square().sum(1)
    length = torch.where(squared > 0.0, -share * loss / squared, 0.0)
    return length.unsqueeze(1) * gradient


def look_ahead_affinity(before: Tensor, after: Tensor, share: float) -> Tensor:
    """Return which part of each task's loss each step took away, in units of `share`.

    `(L_j - L_ij) / (share L_j)` is 1 where the step did to task j what j's own would do to first
    order, 0 where it did nothing, negative where it did harm; 0 for tasks without a loss.

    Args:
        before: L, at least 0, [T].
        after: Losses after the step for each task, rows, [T, T].
        share: As in `look_ahead_steps`.

    References:
        Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning",
        equation 1, https://arxiv.org/abs/2109.04617, divided by `share`.
    """
    return torch.where(before > 0.0, (before - after) / (share * before), 0.0)
