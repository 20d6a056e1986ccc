"""Ctrl-C and SIGTERM at a good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GracefulStop(Callback):
    """Lets Ctrl-C and SIGTERM end training after the current phase, so that a checkpoint is whole.

    In an evaluation, before the first phase is trained on and in the final test they end it at
    once: there is nothing to lose. A second Ctrl-C aborts at once; a second SIGTERM, which may be
    the first one passed on, changes nothing. Several ranks end after the same phase, whichever of
    them was told, and always wait for one. `validate` and `test` of one process end at once.
    Present in what the command line starts. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.GracefulStop
    """

    def __init__(self) -> None:
        self._told: int | None = None
        self._has_trained = False
        self._evaluates = False
        self._has_ended = False
        self._is_alone = True
        self._listens = False
        self._lightning_gives_back = False
        self._previous: dict[int, Any] = {}

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Take over the signals, where that is possible: in the main thread."""
        self._begin(trainer)
        self._listen(SIGNALS)

    def on_train_start(self, *_: Any) -> None:
        """Take SIGTERM from Lightning, whose handler sets a flag that only batches look at."""
        if self._listens:
            signal.signal(signal.SIGTERM, self._on_signal)
            self._lightning_gives_back = True

    def on_train_batch_start(self, *_: Any) -> None:
        """From here on, updates could be lost."""
        self._has_trained = True

    def on_phase_start(self, trainer: lightning.Trainer) -> None:
        """Stop between two phases, when the row of metrics of the first is written."""
        self._stop_if_told(trainer)

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop before an evaluation, and in it at any time."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._only_evaluate(trainer)
        if self._told is not None and self._is_alone:
            self._stop(self._told)
        self._evaluates = True

    # Checkpoints are written after this hook, and an interruption must not cut them off.
    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Wait for the ends of phases again."""
        self._evaluates = False
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._give_back()

    def on_test_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Stop in a test at any time."""
        self._only_evaluate(trainer)

    def on_test_end(self, *_: Any) -> None:
        """Give SIGTERM back, before Lightning gives it to whose it was."""
        self._give_back()

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop before the final test, and in it at any time; all checkpoints are written."""
        self._lightning_gives_back = False
        self._has_ended = True
        self._stop_if_told(trainer)
        if not self._is_alone:
            # No rank asks the others from here on.
            self._give_back()

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Give the signals back."""
        self._give_back()

    def on_exception(self, *_: Any) -> None:
        """Give the signals back."""
        self._give_back()

    def _only_evaluate(self, trainer: lightning.Trainer) -> None:
        """Take SIGTERM from Lightning where nothing is trained: its flag is never looked at."""
        self._begin(trainer)
        self._has_ended = True
        if self._is_alone:
            self._listen((signal.SIGTERM,))

    def _begin(self, trainer: lightning.Trainer) -> None:
        """Forget an earlier run."""
        self._told = None
        self._has_trained = self._evaluates = self._has_ended = False
        self._lightning_gives_back = False
        self._is_alone = trainer.world_size == 1

    def _listen(self, signals: Sequence[signal.Signals]) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {one: signal.signal(one, self._on_signal) for one in signals}
            self._listens = True

    @property
    def _loses_nothing(self) -> bool:
        return self._is_alone and (self._evaluates or self._has_ended or not self._has_trained)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._listens:
            self._hand_on(number, frame)
        elif self._loses_nothing or (self._told is not None and number == signal.SIGINT):
            self._stop(number)
        elif self._told is None:
            self._told = number
            rank_zero_info("\nStopping after this phase. Press Ctrl-C again to abort at once.")

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        """Do as before the run: Lightning, when it ends, gives signals back to what it found."""
        previous = self._previous[number]
        signal.signal(number, previous)
        if callable(previous):
            previous(number, frame)
        else:
            signal.raise_signal(number)

    def _stop_if_told(self, trainer: lightning.Trainer) -> None:
        # Each rank may have been told in another phase, or not at all, or otherwise.
        is_any = trainer.strategy.reduce_boolean_decision
        if is_any(self._told is not None, all=False):
            is_terminated = is_any(self._told == signal.SIGTERM, all=False)
            self._stop(signal.SIGTERM if is_terminated else signal.SIGINT)

    def _stop(self, number: int) -> None:
        protects = self._listens and self._lightning_gives_back
        self._give_back()
        if protects:
            # Another one must not cut off checkpoints: Lightning ignores Ctrl-C until they are
            # written, and then gives back both.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SIGTERMException if number == signal.SIGTERM else KeyboardInterrupt

    def _give_back(self) -> None:
        if self._listens:
            self._listens = False
            for number, handler in self._previous.items():
                signal.signal(number, handler)
