"""A learner that updates on given batches, without a run around it."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

from lightning.pytorch.core.optimizer import LightningOptimizer

from lit_mtdqn.algorithms import ValueLearner
from lit_mtdqn.types import Clock, Losses, Transition


class Standalone:
    """Makes a learner's updates as a Trainer on one device would.

    Args:
        model: The learner.
    """

    def __init__(self, model: ValueLearner) -> None:
        self.model = model
        trainer: Any = Mock()
        trainer.world_size, trainer.callbacks, trainer.log_every_n_steps = 1, [], 0
        trainer.fit_loop.epoch_loop.total_batch_idx = 0
        trainer.precision_plugin.scaler = None
        trainer.precision, trainer.datamodule.task_infos = "32-true", model.tasks
        trainer.datamodule.tasks, trainer.datamodule.keeps_replays = {}, model.needs_replays
        trainer.datamodule.clock = Clock({info.name: 0 for info in model.tasks})
        trainer.global_rank = 0
        model.trainer = trainer
        model.setup("fit")
        self.optimizer = LightningOptimizer(model.configure_optimizers())
        trainer.strategy._lightning_optimizers = [self.optimizer]
        model.on_fit_start()
        model._direct = True
        model.network.train()

    def update(self, *batches: Transition) -> list[Losses]:
        """Make an update on each batch."""
        return [self.model.update(batch, self.optimizer) for batch in batches]
