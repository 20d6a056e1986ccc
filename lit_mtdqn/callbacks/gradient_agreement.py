"""Whether tasks pull the parameters that they share into one direction."""

from __future__ import annotations

from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_mtdqn.balancing import TaskGradients
from lit_mtdqn.functional.gradients import gradient_cosines
from lit_mtdqn.types import Phase, TaskInfo, Transition, require


@runtime_checkable
class HasTaskGradients(Protocol):
    """A learner that can tell its tasks' gradients apart."""

    tasks: list[TaskInfo]

    def task_gradients(self, batch: Transition) -> TaskGradients:
        """Return the gradients of the tasks in a batch; nothing but the result changes."""

    def logging_is_due(self) -> bool:
        """Return whether a row of metrics is to be logged with the phase at hand."""


class GradientAgreement(Callback):
    """Logs how the tasks' gradients of shared parameters agree, and how long they are.

    Of the last minibatch of a phase: `gradients/cosine/<task>/<task>`, negative where a step for
    one task raises the other's loss, and `gradients/share/<task>`, the part of a task's length in
    the sum of all lengths, before balancing. Each time costs a forward and a backward pass. The
    run's report draws their means over the run. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.GradientAgreement
            init_args: {every_n_updates: 1000}

    Args:
        every_n_updates: Least updates between two looks, which come with rows of metrics only.
            Larger costs less.

    Raises:
        ValueError: If `every_n_updates` is below 1.

    References:
        Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", section 2,
        https://arxiv.org/abs/2001.06782.
    """

    def __init__(self, every_n_updates: int = 1000) -> None:
        require(every_n_updates >= 1, "every_n_updates", "be at least 1", every_n_updates)
        self.every_n_updates = every_n_updates
        self._next_update = 0

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that the learner knows gradients of tasks."""
        must = "be a MultiTaskDQN, whose gradients `GradientAgreement` compares"
        require(isinstance(pl_module, HasTaskGradients), "model", must, type(pl_module).__name__)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Phase,
        batch_idx: int,
    ) -> None:
        """Look, when a row is due and the last look is long ago."""
        assert isinstance(pl_module, HasTaskGradients), "setup has checked it"
        updates = trainer.datamodule.clock.updates  # type: ignore[attr-defined]
        if updates < self._next_update or not pl_module.logging_is_due():
            return
        self._next_update = updates + self.every_n_updates
        *_, last = batch.transitions.minibatches()
        present = sorted(set(last.task.tolist()))
        names = [pl_module.tasks[index].name for index in present]
        pl_module.log_dict(_agreement(pl_module.task_gradients(last).by_task, names))


def _agreement(by_task: Tensor, names: list[str]) -> dict[str, Tensor]:
    cosines = gradient_cosines(by_task)
    lengths = torch.linalg.vector_norm(by_task, dim=1)
    shares = lengths / lengths.sum().clamp_min(torch.finfo(lengths.dtype).tiny)
    pairs = combinations(range(len(names)), 2)
    return {
        **{f"gradients/cosine/{names[i]}/{names[j]}": cosines[i, j] for i, j in pairs},
        **{f"gradients/share/{name}": shares[i] for i, name in enumerate(names)},
    }
