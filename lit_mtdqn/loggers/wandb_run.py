"""A run on Weights & Biases."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

AXIS = "env_steps"
ID_FILE = Path("wandb", "id")
# W&B's own 90 s are long for a cluster node without a network, where each run of a sweep waits.
INIT_TIMEOUT = "30"  # s


class WandbRun(WandbLogger):
    """Logs to Weights & Biases, with env steps as the axis of every metric.

    Where the service cannot be reached, or nobody is logged in, a warning says so and the run is
    logged to its folder, from which `wandb sync` sends it later. In YAML:

        trainer:
          logger:
            class_path: lit_mtdqn.loggers.WandbRun
            init_args: {project: lit_mtdqn}

    Args:
        run_dir: Folder of the run, for what W&B keeps on disk; a later logger of the same folder
            goes on with the same W&B run. The command line fills it in. None keeps files in the
            working directory, and every logger is a run of its own.
        log_model: Whether the best checkpoint is sent as an artifact when training ends. It is
            copied first, which fills disks where there are many runs.
        **options: Others of Lightning's `WandbLogger`, such as `project`, `name` and `offline`, and
            of `wandb.init`.
    """

    def __init__(self, run_dir: str | None = None, log_model: bool = False, **options: Any) -> None:
        super().__init__(log_model=log_model, **options)
        self.run_dir = run_dir
        # W&B warns of this even where it is None.
        del self._wandb_init["anonymous"]

    @property
    def run_dir(self) -> str | None:
        """Folder of the run."""
        return self._run_dir

    @run_dir.setter
    def run_dir(self, run_dir: str | None) -> None:
        self._run_dir = run_dir
        if run_dir is not None:
            self._save_dir = self._wandb_init["dir"] = run_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which starts when it is first asked for."""
        if self._experiment is None:
            self._continue_earlier()
            run = self._start()
            # Lightning has defined an axis of its own.
            run.define_metric(AXIS)
            run.define_metric("*", step_metric=AXIS, overwrite=True)
            self._remember(run.id)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Send a row.

        Args:
            metrics: Values by name.
            step: Env steps, summed over tasks.
        """
        super().log_metrics(metrics if step is None else {**metrics, AXIS: step})

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Remember which checkpoints are to be sent: those of the best network."""
        if checkpoint_callback.monitor is not None:
            super().after_save_checkpoint(checkpoint_callback)

    def _start(self) -> Any:
        import wandb

        os.environ.setdefault("WANDB_INIT_TIMEOUT", INIT_TIMEOUT)
        try:
            with _unattended():
                return super().experiment
        except wandb.Error as error:
            reason = str(error).splitlines()[0].rstrip(".")
            rank_zero_warn(
                f"Weights & Biases is out of reach, and this run is logged offline ({reason}). "
                "`wandb sync` sends it later."
            )
            self._wandb_init["mode"] = "offline"
            return super().experiment

    def _continue_earlier(self) -> None:
        if self.run_dir is None:
            return
        Path(self.run_dir).mkdir(parents=True, exist_ok=True)
        file = Path(self.run_dir) / ID_FILE
        if self._wandb_init["id"] is None and file.is_file():
            self._wandb_init["id"] = file.read_text()

    def _remember(self, run_id: str) -> None:
        if self.run_dir is not None:
            file = Path(self.run_dir) / ID_FILE
            file.parent.mkdir(exist_ok=True)
            file.write_text(run_id)


@contextmanager
def _unattended() -> Iterator[None]:
    """Let W&B raise where it would ask a terminal for a key, and a run would wait for ever.

    `wandb.login(prompt=False)` is of 0.31 only.
    """
    terminal, sys.stdin = sys.stdin, StringIO()
    try:
        yield
    finally:
        sys.stdin = terminal
