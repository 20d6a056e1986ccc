"""A learner of known gradients, as a balancer sees one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_mtdqn import TaskInfo
from lit_mtdqn.balancing import Balancer, TaskGradients, TaskLosses
from lit_mtdqn.networks import QNetwork


def tasks(count: int) -> list[TaskInfo]:
    """Return so many tasks."""
    return [TaskInfo(name=f"t{i}", observation_shape=(2,), num_actions=2) for i in range(count)]


def built(make: Any, count: int) -> Balancer:
    """Return a balancer of so many tasks."""
    balancer = make(tasks(count), QNetwork(tasks(count)))
    assert isinstance(balancer, Balancer)
    return balancer


class HandBackward:
    """Has losses and gradients that a test states.

    Args:
        jacobian: Gradient of each task's loss, [T, P].
        unbalanced: Gradient of what is added after balancing, [P], or None.

    Attributes:
        filled: Gradient of the shared parameters, [P].
        moved: By what the shared parameters were moved, [P].
        world_size: Number of ranks.
        updates: Updates made so far.
    """

    world_size = 1
    updates = 0

    def __init__(self, jacobian: Any = ((0.0,),), unbalanced: Any = None) -> None:
        self.jacobian = torch.tensor(jacobian)
        self.unbalanced = None if unbalanced is None else torch.tensor(unbalanced)
        self.parameters = [nn.Parameter(torch.zeros(1, self.jacobian.shape[1]))]
        self.filled = torch.zeros(0)
        self.moved = torch.zeros(0)
        self.losses_after = torch.zeros(0)

    def losses(self, *values: float) -> TaskLosses:
        """Return losses of these values, one per task."""
        loss = torch.tensor(values or [1.0] * len(self.jacobian), requires_grad=True)
        return TaskLosses(loss, torch.arange(len(loss)), None)

    def backpropagate(self, loss: Tensor) -> None:
        """Back-propagate."""
        torch.autograd.backward(loss)

    def backpropagate_by_task(
        self, losses: TaskLosses, weight: Tensor | None = None
    ) -> TaskGradients:
        """Return the stated gradients, weighted."""
        rows = self.jacobian if weight is None else self.jacobian * weight.unsqueeze(1)
        return TaskGradients(rows, self.unbalanced, self.parameters)

    def fill_shared(self, gradient: Tensor) -> None:
        """Keep the gradient."""
        self.filled = gradient

    def move_shared(self, step: Tensor) -> None:
        """Keep the step."""
        self.moved = step

    def mean_over_ranks(self, tensor: Tensor) -> Tensor:
        """Return the tensor: there is one rank."""
        return tensor

    def task_losses_of(self, batch: Any) -> TaskLosses:
        """Return the losses after an update."""
        return TaskLosses(self.losses_after, torch.arange(len(self.losses_after)), None)
