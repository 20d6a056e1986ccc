"""Films of a run on Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from lit_mtdqn.callbacks.filming import film
from lit_mtdqn.rollout.recording import UnrenderableError, write_gif
from lit_mtdqn.types import ActionValues, require


class EpisodeVideos(Callback):
    """Films an episode of each evaluated task now and then, and sends it to Weights & Biases.

    It is the same start each time, played by the network of an evaluation. Training goes on as it
    would without. Does nothing without a W&B logger. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.EpisodeVideos
            init_args: {per_run: 5}

    Args:
        per_run: Films of each task, at least 1, spread evenly over the run's env steps; each is of
            the first evaluation that is due.

    Raises:
        ValueError: If `per_run` is below 1.
    """

    def __init__(self, per_run: int = 5) -> None:
        require(per_run >= 1, "EpisodeVideos.per_run", "be at least 1", per_run)
        self.per_run = per_run
        self._filmed = 0
        self._unrenderable: set[str] = set()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Take the films of a resumed run's earlier part for made."""
        self._filmed = self._due(trainer)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Film, if it is time to."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
        fits = trainer.state.fn == TrainerFn.FITTING and trainer.is_global_zero
        due = self._due(trainer) if loggers and fits else 0
        if due <= self._filmed:
            return
        self._filmed = due
        assert isinstance(pl_module, ActionValues), "it has just played"
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        for task in [name for name, spec in data.tasks.items() if spec.evaluates]:
            self._send(pl_module, data, task, loggers)

    def _due(self, trainer: lightning.Trainer) -> int:
        """Return how many films there should be by now."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        done, budget = data.clock.total_env_steps, data.total_env_steps
        if budget is None:
            done, budget = data.clock.updates, data.total_updates
        return int(self.per_run * done / budget)

    def _send(self, policy: ActionValues, data: Any, task: str, loggers: list[WandbLogger]) -> None:
        try:
            recording = film(policy, data, task)
        except UnrenderableError as error:
            if task not in self._unrenderable:
                rank_zero_info(f"No films of {task}: {error}")
            self._unrenderable.add(task)
            return
        with TemporaryDirectory() as folder:
            # A finished file: from frames W&B would need an encoder that it does not come with.
            path = Path(folder) / f"{task}.gif"
            write_gif(recording, path)
            for logger in loggers:
                key, step = f"video/{task}", data.clock.total_env_steps
                logger.log_video(key, [str(path)], step, format=["gif"])
