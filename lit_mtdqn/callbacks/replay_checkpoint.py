"""Replays beside the checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info


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
        self._trains = False

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Read the replays if this is a resumed run that has them."""
        folder = self._rank_folder(trainer)
        if trainer.ckpt_path and folder.is_dir():
            trainer.datamodule.load_replay(folder)  # type: ignore[attr-defined]
            rank_zero_info(f"Replays loaded from {folder}.")
        # From here on the replays are this run's own; before, they must not replace those on disk.
        self._trains = True

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write the replays."""
        self._dump(trainer)

    def on_exception(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write the replays of an interrupted run."""
        self._dump(trainer)

    def _dump(self, trainer: lightning.Trainer) -> None:
        if not self._trains:
            return
        self._trains = False
        trainer.datamodule.dump_replay(self._rank_folder(trainer))  # type: ignore[attr-defined]

    def _rank_folder(self, trainer: lightning.Trainer) -> Path:
        base = Path(self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "replay")
        return base / f"rank_{trainer.global_rank}"
