"""How good a network is before it learns."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from lit_mtdqn.analysis.scores import evaluation_metrics
from lit_mtdqn.types import Episodes


class InitialEvaluation(Callback):
    """Evaluates once before the first phase, so that curves begin at env step 0.

    What weights of another run are worth at once can be told only here. Training goes on as it
    would without. The numbers go to the loggers alone: no checkpoint is chosen by them. Skipped
    where a run is resumed. Present in the stages of a sequence. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.InitialEvaluation
    """

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Play and log; all weights are where they belong by now."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        begun = data.clock.updates > 0 or data.clock.total_env_steps > 0
        if begun:
            return
        # All ranks play.
        episodes: list[Episodes] = list(data.val_dataloader())
        metrics = evaluation_metrics(episodes, data.task_infos, "val")
        loggers = trainer.loggers if trainer.is_global_zero and metrics else []
        for logger in loggers:
            logger.log_metrics(metrics, step=0)
