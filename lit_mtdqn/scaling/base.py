"""What a scale is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mtdqn.networks import Head, QNetwork
from lit_mtdqn.types import ReturnSums, TaskInfos, Transition, as_task_infos, require

Reduce = Callable[[Tensor], Tensor]


def by_row(numbers: Tensor, task: Tensor, values: Tensor) -> Tensor:
    """Return the tasks' numbers [T] for row groups of the tasks [S], to go with values [S, ...]."""
    return numbers[task].view(-1, *[1] * (values.dim() - 1))


class Scale(nn.Module, ABC):
    """Base of all scales.

    The networks of task i predict `(value - offset[i]) / spread[i]`; rewards are brought to that
    unit at the start of each update, so replays and reports keep raw ones. Statistics are saved
    with the weights, by the tasks' names, and are equal on all ranks.

    Args:
        tasks: The tasks; given by the learner.
        width: Statistics per task.

    Attributes:
        offset: Raw value that the networks call 0, [T].
        spread: Raw values per unit of the networks, above 0, [T].
        statistics: What offset and spread follow from, [T, width], float64.
        keeps_values: Whether a network's raw values stay as they are while the scale learns: its
            unit is fixed, or heads are rewritten with it.
        needs_returns: Whether it learns from the returns of training episodes.
        follows_targets: Whether it learns from the targets of every update.
        weighs_losses: Whether it weighs losses in place of bringing values to another unit.
    """

    offset: Tensor
    spread: Tensor
    statistics: Tensor
    keeps_values = True
    needs_returns = False
    follows_targets = False
    weighs_losses = False

    def __init__(self, tasks: TaskInfos, width: int) -> None:
        super().__init__()
        self.tasks = [info.name for info in as_task_infos(tasks)]
        count = len(self.tasks)
        self.register_buffer("offset", torch.zeros(count), persistent=False)
        self.register_buffer("spread", torch.ones(count), persistent=False)
        statistics = torch.zeros(count, width, dtype=torch.float64)
        self.register_buffer("statistics", statistics, persistent=False)

    def bind(self, network: QNetwork) -> None:
        """Take the network whose values it scales; called once, before anything is learned.

        Raises:
            ValueError: If it is not of their kind.
        """
        head = network.head
        must = f"be null for {type(head).__name__}, which predicts no returns"
        require(not head.spans_tasks, "scale", must, type(self).__name__)

    def lend(self, task: int, owner: int) -> None:
        """Let a task that does not learn from rewards have the unit of one that does.

        Args:
            task: Its number; its head is its own.
            owner: The other's number.
        """

    def normalised(self, batch: Transition) -> Transition:
        """Return a minibatch with rewards in the networks' unit.

        With value v = offset + spread u, the target r + d v' of v is that of u with the reward
        (r - (1 - d) offset) / spread.
        """
        offset = by_row(self.offset, batch.task, batch.reward)
        spread = by_row(self.spread, batch.task, batch.reward)
        return batch._replace(reward=(batch.reward - (1.0 - batch.discount) * offset) / spread)

    def restored(self, values: Tensor, task: Tensor) -> Tensor:
        """Return raw values [S, ...] for values of the networks, of the tasks [S]."""
        return values * by_row(self.spread, task, values) + by_row(self.offset, task, values)

    def in_unit(self, values: Tensor, task: Tensor) -> Tensor:
        """Return values of the networks [S, ...] for raw values, of the tasks [S]."""
        return (values - by_row(self.offset, task, values)) / by_row(self.spread, task, values)

    def restored_errors(self, errors: Tensor, task: Tensor) -> Tensor:
        """Return differences of values [S, ...] in the unit of rewards, of the tasks [S]."""
        return errors * by_row(self.spread, task, errors)

    def loss_weight(self, task: Tensor) -> Tensor | None:
        """Return factors on the losses of row groups of the tasks [S], or None for none."""
        return None

    def on_returns(self, sums: Tensor) -> None:
        """Learn from the episodes of a phase, before its updates.

        Args:
            sums: `ReturnSums` of all tasks and ranks, [T, 8].
        """

    def on_target(
        self, target: Tensor, task: Tensor, heads: Sequence[Head], mean_over_ranks: Reduce
    ) -> Tensor:
        """Learn from the targets of an update before its losses, and return them in the new unit.

        Asked only where `follows_targets`.

        Args:
            target: In the networks' unit, [S, B] or [S, B, Z].
            task: Its row groups' tasks, [S].
            heads: All heads that predict in that unit, which may be rewritten.
            mean_over_ranks: Averages a tensor over ranks.
        """
        return target

    @abstractmethod
    def refresh(self) -> None:
        """Compute offset and spread from the statistics."""

    def metrics(self) -> dict[str, Tensor]:
        """Return each task's spread, by metric name."""
        return {f"scale/{name}": self.spread[index] for index, name in enumerate(self.tasks)}

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the statistics by task."""
        return {name: self.statistics[index].clone() for index, name in enumerate(self.tasks)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue with saved statistics; tasks that they do not name start anew."""
        for index, name in enumerate(self.tasks):
            if name in state:
                self.statistics[index] = state[name].to(self.statistics)
        self.refresh()


class ReturnScale(Scale):
    """Base of scales that follow from the returns of training episodes.

    Tasks that never act or never learn, and those without a finished episode so far, have no
    returns that count. Their scale is that of a task whose `head` they have, if one of these has
    returns, and else 1.
    """

    needs_returns = True
    same_head: Tensor
    learns: Tensor

    def __init__(self, tasks: TaskInfos) -> None:
        super().__init__(tasks, len(ReturnSums._fields))
        infos = as_task_infos(tasks)
        same = torch.tensor([[own.head == other.head for other in infos] for own in infos])
        self.register_buffer("same_head", same, persistent=False)
        learns = torch.tensor([info.learns for info in infos])
        self.register_buffer("learns", learns, persistent=False)

    def lend(self, task: int, owner: int) -> None:
        """Treat both as if they had one head."""
        self.same_head[task, owner] = True
        self.refresh()

    @torch.no_grad()
    def on_returns(self, sums: Tensor) -> None:
        """Add up sums and keep the largest return."""
        sums = sums.to(self.statistics)
        largest = torch.maximum(self.statistics[:, -1], sums[:, -1])
        self.statistics += sums
        self.statistics[:, -1] = largest
        self.refresh()

    def sums(self) -> ReturnSums:
        """Return all sums so far, tensors [T] in place of numbers.

        Those of a task without returns are of the first one that has some, among those of its head.
        """
        known = self.learns & (self.statistics[:, ReturnSums._fields.index("returns")] > 0.0)
        of_head = self.same_head & known
        own = torch.arange(len(known), device=known.device)
        owner = own.where(known | ~of_head.any(1), of_head.int().argmax(1))
        return ReturnSums(*self.statistics[owner].unbind(1))  # type: ignore[arg-type]
