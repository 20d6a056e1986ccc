"""Progress in env steps."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from tqdm import tqdm

REFRESH_SECONDS = 0.2
SCORE = "val/score/"
# Without tasks per second, which depends on the order of the tasks.
TASKS_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} tasks [{elapsed}]"


class EnvStepProgressBar(ProgressBar):
    """Shows how much of the budget is used, how fast, and each task's latest score.

    A test, or a validation outside of training, counts the tasks that were played. Present by
    default instead of Lightning's own bar, which would count phases.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._in_steps = True
        self._drawn = 0.0
        self._enabled = True
        self._start = (0.0, 0)

    def disable(self) -> None:
        """Draw nothing, as on ranks other than the first."""
        self._enabled = False

    def enable(self) -> None:
        """Draw."""
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Whether it draws; Lightning prints through a bar that does."""
        return self._enabled

    @property
    def is_disabled(self) -> bool:
        """Whether it draws nothing."""
        return not self._enabled

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above the bar."""
        if self._bar is None:
            print(*args, sep=sep)  # noqa: T201
        else:
            self._bar.write(sep.join(map(str, args)))

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Open the bar where the clock stands."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._in_steps = data.total_env_steps is not None
        self._start = (time.monotonic(), data.clock.updates)
        self._bar = self._open(
            "train",
            data.total_env_steps if self._in_steps else data.total_updates,
            unit=" env steps" if self._in_steps else " updates",
            initial=self._done(data),
            unit_scale=True,
            smoothing=0.05,
        )

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Draw, at most every fifth of a second."""
        now = time.monotonic()
        if now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._draw(trainer)

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Leave the last state on the screen."""
        self._draw(trainer)
        self._close()

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Open a bar of tasks, unless this is an evaluation in training."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._open_tasks("validate", trainer.num_val_batches)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Count the task that was played."""
        self._count_task(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Show the new scores at once."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._draw(trainer)
        else:
            self._close()

    def on_test_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Open a bar of tasks."""
        self._open_tasks("test", trainer.num_test_batches)

    def on_test_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Count the task that was played."""
        self._count_task(trainer)

    def on_test_end(self, *_: Any) -> None:
        """Leave the last state on the screen."""
        self._close()

    def on_exception(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Leave the last state on the screen."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._draw(trainer)
        self._close()

    def _open_tasks(self, what: str, batches: list[int | float]) -> None:
        self._bar = self._open(what, sum(batches), initial=0, bar_format=TASKS_FORMAT)

    def _open(self, what: str, total: float, **options: Any) -> tqdm[Any]:
        return tqdm(
            desc=what,
            total=total,
            disable=not self._enabled,
            dynamic_ncols=True,
            mininterval=0.0,
            **options,
        )

    def _done(self, data: Any) -> int:
        return int(data.clock.total_env_steps if self._in_steps else data.clock.updates)

    def _count_task(self, trainer: lightning.Trainer) -> None:
        if self._bar is not None and trainer.state.fn != TrainerFn.FITTING:
            self._bar.update()

    def _draw(self, trainer: lightning.Trainer) -> None:
        """Bring the bar of training up to date."""
        if self._bar is None:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        started, updates = self._start
        per_second = (data.clock.updates - updates) / max(time.monotonic() - started, 1e-9)
        scores = {
            name.removeprefix(SCORE): f"{float(value):.2f}"
            for name, value in trainer.callback_metrics.items()
            if name.startswith(SCORE) and name != f"{SCORE}worst"
        }
        if len(scores) == 2:  # one task is its own mean
            del scores["mean"]
        self._bar.set_postfix({"updates/s": f"{per_second:.0f}", **scores}, refresh=False)
        self._bar.n = min(self._done(data), self._bar.total or 0)
        self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
