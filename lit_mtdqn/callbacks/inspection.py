"""Looks into a learner with the last minibatch of a phase, now and then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, runtime_checkable

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_mtdqn.balancing import TaskGradients
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import Phase, TaskInfo, Transition, require


@runtime_checkable
class Inspectable(Protocol):
    """A learner with a network to look into."""

    tasks: list[TaskInfo]
    network: QNetwork

    def logging_is_due(self) -> bool:
        """Return whether a row of metrics is to be logged with the phase at hand."""

    def prepare_phase(self, phase: Phase) -> Phase:
        """Return the phase as the updates see it."""

    def metrics_over_ranks(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of metrics over the ranks that have them; all ranks must ask."""


@runtime_checkable
class ComparesTasks(Inspectable, Protocol):
    """A learner that can tell its tasks' gradients apart."""

    def tasks_over_ranks(self, batch: Transition) -> list[int]:
        """Return the tasks in the batches of all ranks, rising; all ranks must ask."""

    def task_gradients(self, batch: Transition) -> TaskGradients:
        """Return the gradients of `tasks_over_ranks`; nothing but the result changes."""

    def task_affinity(self, batch: Transition, share: float) -> Tensor:
        """Return what steps for each of `tasks_over_ranks` do to all; nothing else changes."""


class Inspection(Callback, ABC):
    """Base of callbacks that look into a learner with the last minibatch of a phase.

    They look when a row of metrics is due and the last look is long ago, and log what they find
    with that row; a phase without a look costs nothing. Looking changes no parameter, no mode and
    no random number.

    Args:
        every_n_updates: Least updates between two looks, which come with rows of metrics only.
            Larger costs less.

    Raises:
        ValueError: If `every_n_updates` is below 1.

    Attributes:
        inspects: What a learner must be.
        must: The same in words.
    """

    inspects: ClassVar[type[Any]] = Inspectable
    must: ClassVar[str] = "be a ValueLearner, whose network is looked into"

    def __init__(self, every_n_updates: int = 1000) -> None:
        require(every_n_updates >= 1, "every_n_updates", "be at least 1", every_n_updates)
        self.every_n_updates = every_n_updates
        self._next_update = 0
        self._is_looking = False

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that the learner can be looked into; the first row that is due has a look."""
        require(isinstance(pl_module, self.inspects), "model", self.must, type(pl_module).__name__)
        # A later run may count its updates from the start.
        self._next_update = 0

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Phase,
        batch_idx: int,
    ) -> None:
        """Decide whether to look, before the updates change anything."""
        assert isinstance(pl_module, Inspectable), "setup has checked it"
        updates = trainer.datamodule.clock.updates  # type: ignore[attr-defined]
        self._is_looking = updates >= self._next_update and pl_module.logging_is_due()
        if self._is_looking:
            self._next_update = updates + self.every_n_updates
            self.before_updates(pl_module, _last_minibatch(batch, pl_module))

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Phase,
        batch_idx: int,
    ) -> None:
        """Log what is found."""
        if self._is_looking:
            assert isinstance(pl_module, Inspectable), "setup has checked it"
            found = self.metrics(pl_module, _last_minibatch(batch, pl_module))
            pl_module.log_dict(pl_module.metrics_over_ranks(found))

    def before_updates(self, learner: Any, batch: Transition) -> None:
        """Note how things are before the updates of a phase; nothing unless overridden."""

    @abstractmethod
    def metrics(self, learner: Any, batch: Transition) -> dict[str, Tensor]:
        """Return what is found after the updates of a phase, by full name.

        Args:
            learner: The learner.
            batch: The last minibatch of the phase, [S, B].
        """


class TaskComparison(Inspection):
    """Base of those that compare what tasks want of the parameters that they share.

    Ranks may have unlike tasks: they compare all that any of them has.
    """

    inspects = ComparesTasks
    must = "be a MultiTaskDQN, which tells its tasks' gradients apart"

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that the learner knows gradients of tasks, and that its tasks share something."""
        super().setup(trainer, pl_module, stage)
        assert isinstance(pl_module, ComparesTasks)
        must = f"share parameters between tasks, which {type(self).__name__} compares"
        shared = pl_module.network.shared_parameters()
        require(bool(shared), "model.network", must, "none shared")


def compared_tasks(batch: Transition, learner: ComparesTasks) -> list[str]:
    """Return the names of the tasks that any rank has in its minibatch, rising by index."""
    return [learner.tasks[index].name for index in learner.tasks_over_ranks(batch)]


def tasks_in(batch: Transition, learner: Inspectable) -> dict[int, str]:
    """Return the names of the tasks in a minibatch by their indices, rising."""
    return {index: learner.tasks[index].name for index in sorted(set(batch.task.tolist()))}


def _last_minibatch(phase: Phase, learner: Inspectable) -> Transition:
    if phase.order is not None:
        phase = phase._replace(order=phase.order[-1:])
    *_, last = learner.prepare_phase(phase).transitions.minibatches()
    return last
