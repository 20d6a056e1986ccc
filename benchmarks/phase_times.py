"""How long a phase is played and learned from, where nothing is logged, saved or evaluated."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import DQN, RolloutDataModule
from lit_mtdqn.callbacks import EpsilonDecay


class PhaseTimes(NamedTuple):
    """Seconds of a phase: of playing, folding, remembering and sampling, and of the updates."""

    playing: float
    learning: float


class Stopwatch(Callback):
    """Times the two halves of each phase, and ends the run after some."""

    def __init__(self, skip: int, phases: int) -> None:
        self._skip, self._phases = skip, phases
        self._since = 0.0
        self.playing: list[float] = []
        self.learning: list[float] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Note how long the phase was played."""
        self._note(self.playing)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Note how long it was learned from."""
        self._note(self.learning)
        trainer.should_stop = len(self.learning) >= self._skip + self._phases

    def _note(self, seconds: list[float]) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds.append(now - self._since)
        self._since = now

    def medians(self) -> PhaseTimes:
        """Return the medians over phases."""
        halves = (self.playing, self.learning)
        return PhaseTimes(*(statistics.median(seconds[self._skip :]) for seconds in halves))


def phase_times(
    model: DQN,
    data: RolloutDataModule,
    skip: int,
    phases: int,
    device: str = "cpu",
    precision: Any = "32-true",
    callbacks: Sequence[Callback] = (),
) -> PhaseTimes:
    """Train for some phases and return the median times of one.

    Args:
        model: The learner.
        data: Whose budget and evaluations lie beyond these phases.
        skip: Phases of warm-up, not counted.
        phases: Phases that count.
        device: `cpu` or `cuda`.
        precision: As of the Trainer.
        callbacks: Further ones.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    stopwatch = Stopwatch(skip, phases)
    trainer = lightning.Trainer(
        accelerator="gpu" if device == "cuda" else device,
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        max_epochs=-1,
        callbacks=[stopwatch, EpsilonDecay(start=0.1, end=0.1), *callbacks],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore")
        trainer.fit(model, data)
    return stopwatch.medians()
