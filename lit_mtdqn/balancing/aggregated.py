"""One gradient of the shared parameters out of one per task."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torchjd.aggregation import Aggregator

from lit_mtdqn.balancing.base import Backward, Balancer, TaskLosses
from lit_mtdqn.types import TaskInfos


class Aggregated(Balancer):
    """Combines the tasks' gradients of the shared parameters by one of torchjd's aggregators.

    `torchjd.aggregation.PCGrad` projects conflicts away (Yu et al. 2020), `CAGrad` averts them (Liu
    et al. 2021), `UPGrad` (Quinton and Rey 2024), `MGDA` (Desideri 2012), `NashMTL` (Navon et al.
    2022), `AlignedMTL` (Senushkin et al. 2023), `IMTLG`, ... Heads and whatever else one task alone
    uses keep their own gradient; clipping comes afterwards. Gradients are means over ranks before
    they are combined, because aggregators are not linear. Where equal weights take the mean over
    tasks, `PCGrad` takes a sum: its steps are that much longer before clipping.

    Args:
        tasks: The tasks; given by the learner.
        aggregator: Makes the aggregator; its argument `n_tasks`, where it has one, is filled in with
            the number of learning tasks.
    """

    by_task = True

    def __init__(self, tasks: TaskInfos, aggregator: Callable[..., Aggregator]) -> None:
        super().__init__(tasks)
        self.aggregator = aggregator(**_tasks_of(aggregator, len(self.learning)))

    def accumulate(self, losses: TaskLosses, learner: Backward) -> None:
        """Fill the gradients of all parameters."""
        gradients = learner.backpropagate_by_task(losses)
        learner.fill_shared(self.aggregator(gradients.shared))


def _tasks_of(factory: Any, tasks: int) -> dict[str, int]:
    return {"n_tasks": tasks} if "n_tasks" in inspect.signature(factory).parameters else {}
