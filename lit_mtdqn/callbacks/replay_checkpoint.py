"""Replays beside the checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_mtdqn.replay import Replay, is_out_of_room, set_aside
from lit_mtdqn.types import Clock, require


class ReplayCheckpoint(Callback):
    """Writes the replays into the run's folder with every checkpoint, and reads them on a resume.

    They are written before the checkpoint and hold the same clock, and those of the checkpoint
    before are removed only when the next phase begins: whenever a run is killed, its last
    checkpoint has its own replays. Others are never read. A resumed run without its replays plays
    its warm-up again, with the policy it has learned, before updates go on, and says so. Present in
    runs of the command line, unless `--save_replays=false`. A disk without room costs the replays
    and not the run, which a warning says. In YAML:

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
        self._has_replaced = False
        self._has_warned = False
        self._written: dict[str, Any] | None = None

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
        self._has_trained, self._has_warned = False, False
        # `log_dir` waits for the other ranks, which after an exception may be gone.
        base = self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "replay"
        self._rank_folder = Path(base) / f"rank_{trainer.global_rank}"
        self._written = None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.ckpt_path or data.clock.phases == 0:
            return
        self._drop_unmatched(data.clock)
        missing = data.load_replay(self._rank_folder, of_now=True)
        if not missing:
            self._written = data.clock.state_dict()
            rank_zero_info(f"Replays loaded from {self._rank_folder}.")
        for task, reason in missing.items():
            rank_zero_warn(
                f"No replay of {task} goes on: {reason}. Before updates go on, "
                f"{data.warmup_env_steps} of its transitions are played with the policy learned."
            )

    def _drop_unmatched(self, clock: Clock) -> None:
        """Remove replays of which the checkpoint was never written, where the old ones are left."""
        old = set_aside(self._rank_folder)
        moments = [Replay.stored_moment(path) for path in old.glob("*")]
        if moments and all(moment == clock.state_dict() for moment in moments):
            shutil.rmtree(self._rank_folder, ignore_errors=True)
            old.rename(self._rank_folder)

    def on_train_batch_start(self, *_: Any) -> None:
        """Remove the replays of the checkpoint before: the last one is whole by now."""
        self._drop_replaced()

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Remove the replays of the checkpoint before."""
        self._drop_replaced()

    def _drop_replaced(self) -> None:
        if self._has_replaced:
            self._has_replaced = False
            shutil.rmtree(set_aside(self._rank_folder), ignore_errors=True)

    def on_train_batch_end(self, *_: Any) -> None:
        """From here on the replays are worth more than those on disk."""
        self._has_trained = True

    def on_save_checkpoint(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write the replays that belong to a checkpoint, which is written next."""
        self._dump(trainer)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Write the replays, should no checkpoint have done so."""
        self._dump(trainer)

    def on_exception(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Write the replays of a run that was interrupted between two phases.

        Where they cannot be written, a warning says so, and the run ends by what has stopped it.
        """
        if not trainer.datamodule.is_between_phases:  # type: ignore[attr-defined]
            return
        try:
            self._dump(trainer)
        except OSError as error:
            rank_zero_warn(
                f"Replays are not written to {self._rank_folder} ({error.strerror or error})."
            )

    def _dump(self, trainer: lightning.Trainer) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        clock: Clock = data.clock
        if not self._has_trained or self._written == clock.state_dict():
            return
        folder = self._rank_folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        needed, free = data.stored_bytes, shutil.disk_usage(folder.parent).free
        if needed >= free:
            self._warn_once(needed, f"of which {free / 2**30:.1f} GiB are free")
            return
        try:
            data.dump_replay(folder)
        except Exception as error:
            # What is free is not all that is granted, and others write there, too.
            if not is_out_of_room(error):
                raise
            reason = str(error).partition("\n")[0]
            self._warn_once(needed, f"for which there is no room ({reason})")
            return
        self._written = clock.state_dict()
        self._has_replaced, self._has_warned = True, False

    def _warn_once(self, needed: int, reason: str) -> None:
        """Tell of the first of several times in a row that replays are not written."""
        if not self._has_warned:
            rank_zero_warn(
                f"Replays are not written to {self._rank_folder}: they take "
                f"{needed / 2**30:.1f} GiB, {reason}. `--save_replays=false` does without."
            )
        self._has_warned = True
