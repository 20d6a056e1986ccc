"""One gradient of the shared parameters out of one per task."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import Aggregator

from lit_mtdqn.balancing.base import Backward, Balancer, TaskLosses
from lit_mtdqn.balancing.building import build_part
from lit_mtdqn.balancing.state import load_numbers, numbers_of, place_numbers
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import TaskInfos


class Aggregated(Balancer):
    """Combines the tasks' gradients of the shared parameters by one of torchjd's aggregators.

    `torchjd.aggregation.PCGrad` projects conflicts away (Yu et al. 2020), `CAGrad` averts them (Liu
    et al. 2021), `UPGrad` (Quinton and Rey 2024), `MGDA` (Desideri 2012), `NashMTL` (Navon et al.
    2022), `AlignedMTL` (Senushkin et al. 2023), `IMTLG` (Liu et al. 2021), ... Heads and whatever
    else one task alone uses keep their own gradient; clipping comes afterwards. Gradients are means
    over ranks before they are combined, because aggregators are not linear. Where equal weights
    take the mean over tasks, `PCGrad` takes a sum: its steps are that much longer before clipping.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        aggregator: Makes the aggregator; in YAML its `class_path` and `init_args`. An argument
            `n_tasks` is the number of learning tasks unless it is given.

    Raises:
        ValueError: If there is no such aggregator or its arguments do not fit; at an update that
            lacks a learning task, under several ranks or an aggregator that remembers tasks.
        RuntimeError: At an update whose gradients the aggregator's solver finds no combination of.
    """

    by_task = True

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        aggregator: dict[str, Any] | type[Aggregator] | partial[Any],
    ) -> None:
        super().__init__(tasks, network)
        self.aggregator: Aggregator = build_part(Aggregator, aggregator, n_tasks=len(self.learning))
        # By place in the batch, which would be another task's where one is missing.
        self._remembers_tasks = any(hasattr(p, "reset") for p in self.aggregator.modules())

    def accumulate(self, losses: TaskLosses, learner: Backward) -> None:
        """Fill the gradients of all parameters."""
        # Ranks that drew unlike tasks would wait for one another for ever.
        if learner.world_size > 1 or self._remembers_tasks:
            self.require_every_task(losses)
        gradients = learner.backpropagate_by_task(losses)
        self.place(gradients.by_task.device)
        combined = self._combined(gradients.by_task)
        if learner.world_size > 1:
            # Some aggregators draw at random, on each rank for itself.
            combined = learner.mean_over_ranks(combined)
        learner.fill_shared(gradients.complete(combined))

    def _combined(self, gradients: Tensor) -> Tensor:
        """Return one gradient [P] of those of tasks [S, P]; solvers may not find any."""
        try:
            combined: Tensor = self.aggregator(gradients)
        except Exception as error:
            must = "must find a combination of the tasks' gradients"
            reason = f"{type(error).__name__} of {self.aggregator}: {error}"
            raise RuntimeError(f"`balancer.aggregator` {must}. Got {reason}") from error
        return combined

    def get_extra_state(self) -> dict[str, Any]:
        """Return what the aggregator remembers of earlier updates."""
        return {**super().get_extra_state(), "numbers": numbers_of(self.aggregator)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Let the aggregator remember."""
        load_numbers(self.aggregator, state["numbers"])
        self._is_placed = False

    def _place(self, device: torch.device) -> None:
        place_numbers(self.aggregator, device)
