"""One number out of the tasks' losses, then one backward pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchjd.scalarization import DWA, FAMO, Scalarizer

from lit_mtdqn.balancing.base import Backward, Balancer, TaskLosses
from lit_mtdqn.balancing.building import build_part
from lit_mtdqn.balancing.state import load_numbers, numbers_of, place_numbers
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import TaskInfos, Transition, require


class Scalarised(Balancer):
    """Combines the tasks' losses by one of torchjd's scalarisers.

    `torchjd.scalarization.UW` is uncertainty weighting (Kendall et al. 2018), `DWA` dynamic weight
    averaging (Liu et al. 2019), `FAMO` fast adaptive multitask optimisation (Liu et al. 2023),
    `IMTLL` impartial learning by losses (Liu et al. 2021). On several ranks each gets the losses'
    means over ranks, so that the result is that of one process on the joined batch. Where equal
    weights take the mean over tasks, `UW`, `DWA` and `IMTLL` take a sum.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        scalarizer: Makes the scalariser; in YAML its `class_path` and `init_args`. An argument
            `shape` is the number of learning tasks unless it is given.
        floor: Added to every loss, above 0 where logarithms are taken: temporal-difference losses
            come close to 0, where a logarithm's slope explodes.
        step_every_n_updates: Updates between two steps of `DWA`, which compares the means of losses
            between them. Larger compares longer stretches.

    Raises:
        ValueError: If `floor` is negative, `step_every_n_updates` below 1, there is no such
            scalariser or its arguments do not fit.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        scalarizer: dict[str, Any] | type[Scalarizer] | partial[Any],
        floor: float = 1e-4,
        step_every_n_updates: int = 500,
    ) -> None:
        super().__init__(tasks, network)
        require(floor >= 0.0, "floor", "be at least 0", floor)
        must = "be at least 1"
        require(step_every_n_updates >= 1, "step_every_n_updates", must, step_every_n_updates)
        self.scalarizer: Scalarizer = build_part(Scalarizer, scalarizer, shape=len(self.learning))
        self.floor = floor
        self.step_every_n_updates = step_every_n_updates
        self._updates = 0
        self._joined_loss = torch.zeros(0)
        if isinstance(self.scalarizer, FAMO):
            # It has an optimiser of its own.
            self.scalarizer.requires_grad_(False)

    def accumulate(self, losses: TaskLosses, learner: Backward) -> None:
        """Back-propagate the scalariser's number."""
        self.require_every_task(losses)
        self.place(losses.loss.device)
        self._joined_loss = self._joined(losses.loss, learner)
        self._joined_loss.retain_grad()
        total = self.scalarizer(self._joined_loss)
        if losses.unbalanced is not None:
            total = total + losses.unbalanced
        learner.backpropagate(total)
        self._joined_loss.detach_()

    @torch.no_grad()
    def on_update_end(self, batch: Transition, learner: Backward) -> None:
        """Step the scalarisers that look back."""
        if isinstance(self.scalarizer, FAMO):
            # Without `requires_grad` its parameter would be none of its own optimiser's either.
            self.scalarizer.requires_grad_(True)
            self.scalarizer.update(self._joined(learner.task_losses_of(batch).loss, learner))
            self.scalarizer.requires_grad_(False)
        self._updates += 1
        if isinstance(self.scalarizer, DWA) and self._updates % self.step_every_n_updates == 0:
            self.scalarizer.step()

    def task_weights(self) -> Tensor | None:
        """Return the slope of the scalariser's number in each loss."""
        return self._joined_loss.grad

    def _joined(self, loss: Tensor, learner: Backward) -> Tensor:
        """Return losses whose value is the mean over ranks and whose gradient is this rank's.

        Reduced over ranks by mean, their gradients are then those of the joined batch.
        """
        value = loss.detach()
        # In this order the value is the mean to the last bit, and so equal on all ranks.
        joined: Tensor = learner.mean_over_ranks(value.clone()) + (loss - value) + self.floor
        return joined

    def get_extra_state(self) -> dict[str, Any]:
        """Return what the scalariser remembers of earlier updates."""
        optimizer = getattr(self.scalarizer, "_optimizer", None)
        return {
            **super().get_extra_state(),
            "updates": self._updates,
            "numbers": numbers_of(self.scalarizer),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Let the scalariser remember."""
        self._updates = state["updates"]
        load_numbers(self.scalarizer, state["numbers"])
        self._continue_optimizer(state["optimizer"])
        self._is_placed = False

    def _place(self, device: torch.device) -> None:
        place_numbers(self.scalarizer, device)
        optimizer = getattr(self.scalarizer, "_optimizer", None)
        self._continue_optimizer(None if optimizer is None else optimizer.state_dict())

    def _continue_optimizer(self, state: dict[str, Any] | None) -> None:
        """Give `FAMO` an optimiser of this state, which follows the device of its parameter."""
        if isinstance(self.scalarizer, FAMO) and state is not None:
            famo = self.scalarizer
            famo._optimizer = torch.optim.Adam(
                [famo._w], lr=famo.lr, weight_decay=famo.weight_decay
            )
            famo._optimizer.load_state_dict(state)
