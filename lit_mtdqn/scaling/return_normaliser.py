"""Values divided by the largest return."""

from __future__ import annotations

import torch

from lit_mtdqn.functional.distributional import LARGEST
from lit_mtdqn.scaling.base import ReturnScale
from lit_mtdqn.types import TaskInfos, require


class ReturnNormaliser(ReturnScale):
    """Divides each task's rewards so that its largest absolute return so far becomes `v_max`.

    Values then lie within [-v_max, v_max] in every task, so that one support fits the categorical
    heads of all and one learning rate their gradients. Tasks that share a head share its unit, the
    largest of theirs: one output cannot have two.

    Args:
        tasks: The tasks; given by the learner.
        v_max: Size of the largest return in the networks' unit, in (0, 1e6]; for categorical heads
            at most the end of their support. Larger lets losses weigh more against weight decay and
            clipping.

    Raises:
        ValueError: If `v_max` is out of range.

    References:
        Nauman et al. 2025, "Bigger, Regularized, Categorical: High-Capacity Value Functions are
        Efficient Multi-Task Learners", https://arxiv.org/abs/2505.23150.
    """

    keeps_values = False

    def __init__(self, tasks: TaskInfos, v_max: float = 10.0) -> None:
        require(0.0 < v_max <= LARGEST, "v_max", f"lie in (0, {LARGEST:g}]", v_max)
        super().__init__(tasks)
        self.v_max = v_max

    def refresh(self) -> None:
        """Divide by the largest return of a head."""
        own = torch.as_tensor(self.sums().largest_return)
        largest = torch.where(self.same_head, own, 0.0).amax(1)
        self.spread.copy_(torch.where(largest > 0.0, largest / self.v_max, 1.0))
