"""Values normalised by the moments of their targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_mtdqn.networks import Head, QNetwork, TaskLinear
from lit_mtdqn.scaling.base import Reduce, Scale, by_row
from lit_mtdqn.types import TaskInfos, as_task_infos, require

SMALLEST, LARGEST = 1e-4, 1e6


class PopArt(Scale):
    """Keeps each task's targets at mean 0 and variance 1, and what the networks say unchanged.

    Before every update each task's moving mean and deviation of targets move on, and the last
    layers of the online and the target network are rewritten so that their raw values stay as they
    were; then the update learns from its targets in the new unit. The first moments are plain
    averages, until `1 / step_size` updates have been seen, and count what new heads say, 0, as a
    target before the first: targets that are all alike, such as a reward of -1 for every step,
    would else make a unit so small that the networks could not get there. For heads whose outputs
    are linear in their last layer: of one expected value, and of quantiles. Tasks that name one
    `head`, such as a task and the stored transitions of an earlier one, have one unit, that of all
    their targets.

    Args:
        tasks: The tasks; given by the learner.
        step_size: Share of a new minibatch in the moving moments, in (0, 1]. Larger follows the
            targets faster and wavers more.

    Raises:
        ValueError: If `step_size` is out of range.

    References:
        van Hasselt et al. 2016, "Learning values across many orders of magnitude", algorithm 1,
        https://arxiv.org/abs/1602.07714; Hessel et al. 2019, "Multi-task Deep Reinforcement
        Learning with PopArt", https://arxiv.org/abs/1809.04474.
    """

    follows_targets = True
    owner: Tensor

    def __init__(self, tasks: TaskInfos, step_size: float = 3e-4) -> None:
        require(0.0 < step_size <= 1.0, "step_size", "lie in (0, 1]", step_size)
        # Mean, mean of squares, and the number of updates seen.
        super().__init__(tasks, 3)
        self.step_size = step_size
        infos = as_task_infos(tasks)
        self.learning = [place for place, info in enumerate(infos) if info.learns]
        self._heads = [info.head for info in infos]
        self.register_buffer("owner", torch.arange(len(infos)), persistent=False)

    def bind(self, network: QNetwork) -> None:
        """Note whose unit each task has; refuse heads that cannot be rewritten task by task."""
        head = network.head
        must = (
            "have outputs linear in its last layer for PopArt, as LinearHead does; others take "
            "`scale` ReturnNormaliser or null"
        )
        require(head.can_rescale, "head", must, type(head).__name__)
        layer = next(module for module in head.modules() if isinstance(module, TaskLinear))
        rows = layer.row_of_task.tolist()
        owners = {rows[task]: task for task in reversed(self.learning)}
        must = (
            "each have a head of its own for PopArt, or name the `head` that they share; under a "
            "sharing of one head for all take `scale` ReturnNormaliser or null"
        )
        named = {self._heads[task] for task in self.learning}
        require(len(owners) == len(named), "tasks", must, layer.heads)
        # A task that only acts has the unit of the head that it acts with.
        self.owner = torch.tensor([owners.get(row, task) for task, row in enumerate(rows)])

    def lend(self, task: int, owner: int) -> None:
        """Rewrite the task's head with the owner's from now on."""
        self.owner[task] = self.owner[owner]
        self.refresh()

    @torch.no_grad()
    def on_target(
        self, target: Tensor, task: Tensor, heads: Sequence[Head], mean_over_ranks: Reduce
    ) -> Tensor:
        """Move the moments towards the targets', rewrite the heads and return the targets anew."""
        # Of the networks' unit first, on few numbers then: float32 keeps the digits of both.
        variance, mean = torch.var_mean(target.flatten(1), 1, correction=0)
        own_spread, own_offset = self.spread[task].double(), self.offset[task].double()
        raw_mean = own_offset + own_spread * mean
        raw_square = own_spread.square() * variance + raw_mean.square()
        found = torch.stack([raw_mean, raw_square, torch.ones_like(raw_mean)], 1)
        sums = found.new_zeros(len(self.tasks), 3).index_add_(0, self.owner[task], found)
        self._move(mean_over_ranks(sums).to(self.statistics)[self.owner])
        spread, offset = self.spread.clone(), self.offset.clone()
        self.refresh()
        factor, shift = spread / self.spread, (offset - self.offset) / self.spread
        for head in heads:
            head.rescale_(factor, shift)
        return target * by_row(factor, task, target) + by_row(shift, task, target)

    def _move(self, sums: Tensor) -> None:
        """Take sums of means and of squares, and their numbers, [T, 3]."""
        number = sums[:, 2]
        seen = number > 0.0
        self.statistics[:, 2] += seen
        # One more than have been seen: the zero before the first.
        rate = (1.0 / (1.0 + self.statistics[:, 2])).clamp(min=self.step_size).where(seen, 0.0)
        moments = sums[:, :2] / number.clamp(min=SMALLEST).unsqueeze(1)
        self.statistics[:, :2].lerp_(moments, rate.unsqueeze(1))

    def refresh(self) -> None:
        """Compute means and deviations."""
        mean, square, count = self.statistics[self.owner].unbind(1)
        deviation = (square - mean**2).clamp(min=0.0).sqrt().clamp(SMALLEST, LARGEST)
        self.spread.copy_(deviation.where(count > 0.0, 1.0))
        self.offset.copy_(mean)
