"""What a way of sharing one update is asked."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import TaskInfos, Transition, as_task_infos, require


class TaskLosses(NamedTuple):
    """What one update would lower.

    Attributes:
        loss: One loss per task in the batch, [T], with its graph.
        task: Which tasks these are, integers [T], rising.
        unbalanced: What is added after balancing, [], or None.
    """

    loss: Tensor
    task: Tensor
    unbalanced: Tensor | None


class TaskGradients(NamedTuple):
    """Gradients with respect to the parameters that tasks share, side by side; means over ranks.

    Attributes:
        by_task: Of the tasks' losses, [T, P].
        unbalanced: Of what is added after balancing, [P], or None.
        parameters: The P numbers, in their order.
    """

    by_task: Tensor
    unbalanced: Tensor | None
    parameters: Sequence[nn.Parameter]

    def complete(self, balanced: Tensor) -> Tensor:
        """Return what tasks were balanced to, [..., P], and what is added."""
        return balanced if self.unbalanced is None else balanced + self.unbalanced

    def without(self, frozen: Tensor) -> TaskGradients:
        """Return gradients that are 0 where the mask [P] is true."""
        rest = None if self.unbalanced is None else self.unbalanced.masked_fill(frozen, 0.0)
        return self._replace(by_task=self.by_task.masked_fill(frozen, 0.0), unbalanced=rest)


class Backward(Protocol):
    """What a balancer may ask of the learner."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""

    @property
    def updates(self) -> int:
        """Updates made so far, for coefficients on a schedule."""

    def backpropagate(self, loss: Tensor) -> None:
        """Fill all gradients with those of a loss, reduced over ranks."""

    def backpropagate_by_task(
        self, losses: TaskLosses, weight: Tensor | None = None
    ) -> TaskGradients:
        """Return the gradients of shared parameters; fill those of all other parameters.

        Args:
            losses: The losses.
            weight: Factor on each loss, [T], or None.
        """

    def fill_shared(self, gradient: Tensor) -> None:
        """Fill the gradients of the shared parameters with a row [P]."""

    def move_shared(self, step: Tensor) -> None:
        """Add a row [P] to the shared parameters."""

    def mean_over_ranks(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all ranks."""

    def task_losses_of(self, batch: Transition) -> TaskLosses:
        """Return the losses of a batch under the parameters as they are now, without gradient."""


class Balancer(nn.Module, ABC):
    """Base of all ways in which tasks share one update.

    Its parameters, if it has any, are an optimiser group of their own, with learning rate `lr` and
    no weight decay; they are not clipped. What it has learned of tasks is of their set and order:
    loaded for others it begins anew, with a warning.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.

    Attributes:
        lr: Learning rate of its own parameters; None takes the networks'.
        by_task: Whether it needs the gradient of each task.
    """

    lr: float | None = None
    by_task = False

    def __init__(self, tasks: TaskInfos, network: QNetwork) -> None:
        super().__init__()
        infos = as_task_infos(tasks)
        self.tasks = [info.name for info in infos]
        self.learning = [place for place, info in enumerate(infos) if info.learns]
        self._is_placed = False
        self.register_load_state_dict_pre_hook(_begin_anew_with_other_tasks)  # type: ignore[no-untyped-call]

    @abstractmethod
    def accumulate(self, losses: TaskLosses, learner: Backward) -> None:
        """Fill the gradients of all parameters."""

    def on_update_end(self, batch: Transition, learner: Backward) -> None:
        """Learn from what the update did; nothing unless overridden."""

    def task_weights(self) -> Tensor | None:
        """Return the factors on the learning tasks' losses in the last update, [T], or None."""
        return None

    def get_extra_state(self) -> dict[str, Any]:
        """Return the learning tasks, and what a state dict does not hold otherwise."""
        return {"tasks": [self.tasks[place] for place in self.learning]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Continue with what `get_extra_state` has returned."""

    def place(self, device: torch.device) -> None:
        """Let what does not move with a module follow it, if it was moved or loaded since.

        Args:
            device: Where losses are.
        """
        if not self._is_placed:
            self._place(device)
            self._is_placed = True

    def _place(self, device: torch.device) -> None:
        """Move what is no parameter or buffer; nothing unless overridden."""

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # What moves or casts a module comes by here.
        self._is_placed = False
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def require_every_task(self, losses: TaskLosses) -> None:
        """Refuse a batch that lacks a learning task.

        Raises:
            ValueError: If a task is missing; only a task sampler can cause that.
        """
        names = [self.tasks[index] for index in losses.task.tolist()]
        every = [self.tasks[index] for index in self.learning]
        must = f"fill every update with all of {every}, which {type(self).__name__} compares"
        require(names == every, "data.sampler", must, names)


def _begin_anew_with_other_tasks(
    balancer: Balancer, state: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Replace a saved state of other tasks, or of these in another order, by the present one."""
    known = balancer.get_extra_state()["tasks"]
    saved = state.get(f"{prefix}_extra_state", {}).get("tasks", known)
    if saved == known:
        return
    name = type(balancer).__name__
    warnings.warn(
        f"{name} begins anew for the tasks {known}: it was saved for {saved}.", stacklevel=2
    )
    for key in [key for key in state if key.startswith(prefix)]:
        del state[key]
    state.update({f"{prefix}{key}": value for key, value in balancer.state_dict().items()})
