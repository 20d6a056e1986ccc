"""Ctrl-C at a good moment."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info


class GracefulStop(Callback):
    """Lets the first Ctrl-C end training after the current phase, so that a checkpoint is whole.

    In an evaluation, and before the first phase is trained on, it ends at once: there is nothing
    to lose. A second Ctrl-C aborts at once. Several ranks end after the same phase, whichever of
    them was told, and always wait for one. Present in runs of the command line. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.GracefulStop
    """

    def __init__(self) -> None:
        self._requested = False
        self._in_phases = False
        self._is_alone = True
        self._listens = False
        self._previous: Any = None

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Take over the signal, where that is possible: in the main thread."""
        self._requested = False
        self._in_phases = False
        self._is_alone = trainer.world_size == 1
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
            self._listens = True

    def on_train_batch_start(self, *_: Any) -> None:
        """From here on, updates could be lost."""
        self._in_phases = True

    def on_phase_start(self, trainer: lightning.Trainer) -> None:
        """Stop between two phases, when the row of metrics of the first is written."""
        # Each rank may have been told in another phase, or not at all.
        if trainer.strategy.reduce_boolean_decision(self._requested, all=False):
            self._stop()

    def on_validation_start(self, *_: Any) -> None:
        """Stop before an evaluation, and in it at any time."""
        if self._requested and self._is_alone:
            self._stop()
        self._in_phases = False

    # Checkpoints are written after this hook, and an interruption must not cut them off.
    def on_validation_end(self, *_: Any) -> None:
        """Wait for the ends of phases again."""
        self._in_phases = True

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Give the signal back."""
        self._restore()

    def on_exception(self, *_: Any) -> None:
        """Give the signal back."""
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._listens:
            # Lightning, when it ends, gives signals back to what it found: to this.
            if callable(self._previous):
                self._previous(number, frame)
            return
        if self._requested or (self._is_alone and not self._in_phases):
            self._restore()
            raise KeyboardInterrupt
        self._requested = True
        rank_zero_info("\nStopping after this phase. Press Ctrl-C again to abort at once.")

    def _stop(self) -> None:
        self._restore()
        raise KeyboardInterrupt

    def _restore(self) -> None:
        if self._listens:
            self._listens = False
            signal.signal(signal.SIGINT, self._previous)
