"""Replays beside the checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from lit_mtdqn.types import require


class ReplayCheckpoint(Callback):
    """Writes the replays into the run's folder when training ends, and reads them on a resume.

    Without it a resumed run plays its warm-up again, with the policy it has learned. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.ReplayCheckpoint

    Args:
        folder: Where the replays lie; None is `replay` in the run's folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self._rank_folder = Path()
        self._has_trained = False

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Refuse data that keeps no replay."""
        keeps = getattr(trainer.datamodule, "keeps_replays", True)  # type: ignore[attr-defined]
        must = "be left out where `data.keeps_replays` is false"
        require(keeps, "ReplayCheckpoint", must, type(pl_module).__name__)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Read the replays if this is a resumed run that has them."""
        self._has_trained = False
        # `log_dir` waits for the other ranks, which after an exception may be gone.
        base = self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "replay"
        self._rank_folder = Path(base) / f"rank_{trainer.global_rank}"
        if trainer.ckpt_path and self._rank_folder.is_dir():
            trainer.datamodule.load_replay(self._rank_folder)  # type: ignore[attr-defined]
            rank_zero_info(f"Replays loaded from {self._rank_folder}.")

    def on_train_batch_end(self, *_: Any) -> None:
        """From here on the replays are worth more than those on disk."""
        self._has_trained = True

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write the replays."""
        self._dump(trainer)

    def on_exception(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write the replays of an interrupted run."""
        self._dump(trainer)

    def _dump(self, trainer: lightning.Trainer) -> None:
        if self._has_trained:
            self._has_trained = False
            trainer.datamodule.dump_replay(self._rank_folder)  # type: ignore[attr-defined]
