"""A run's folder: `config.yaml`, `metrics.csv`, `checkpoints/`, `replay/`, `report/`."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from lit_mtdqn.callbacks import GracefulStop, RunReport

CONTENTS = ("config.yaml", "metrics.csv", "checkpoints", "report", "replay")


def stamped_run_dir(configurations: Sequence[str]) -> str:
    """Return `runs/<configuration>/<date and time>`, a folder of its own for every run."""
    stem = "run"
    if configurations:
        path = Path(configurations[0]).with_suffix("")
        parts = path.parts
        below = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
        stem = "/".join(below)
    return str(Path("runs") / stem / datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))


def default_run_dir(config: Any, subcommand: str) -> str:
    """Return the folder of a run that names none; evaluations belong to their checkpoint's."""
    checkpoint = config.get("ckpt_path")
    if subcommand != "fit" and checkpoint and Path(checkpoint).parent.name == "checkpoints":
        return str(Path(checkpoint).parent.parent / subcommand)
    if subcommand != "fit" and config.run_dir is not None:
        return str(Path(config.run_dir) / subcommand)
    return stamped_run_dir([str(path) for path in config.get("config") or []])


def prepare_run_dir(run_dir: str, overwrite: bool, resuming: bool) -> None:
    """Refuse a folder that holds another run, or clear it if that was asked for.

    Raises:
        SystemExit: If it holds a run that is neither resumed nor to be overwritten.
    """
    folder = Path(run_dir)
    if resuming or not (folder / "config.yaml").exists():
        return
    if not overwrite:
        raise SystemExit(
            f"error: `run_dir` must not hold a run already. Got {run_dir!r}. Resume that run with "
            "`--ckpt_path last`, choose another folder, or pass `--overwrite true`."
        )
    for name in CONTENTS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class _AppendingWriter(ExperimentWriter):
    """Lightning's writer, but for a resumed run it continues the file."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def _check_log_dir_exists(self) -> None:
        """Delete nothing."""

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Write nothing: `config.yaml` says all."""


class MetricsLogger(CSVLogger):
    """Writes `metrics.csv` into a run's folder.

    Args:
        run_dir: The folder.
    """

    def __init__(self, run_dir: str) -> None:
        super().__init__(save_dir=run_dir, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer."""
        if self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _AppendingWriter(self.log_dir)
        return self._experiment

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged."""
        self.experiment.save()


def run_loggers(run_dir: str, given: Any) -> list[Logger] | bool:
    """Return the loggers of a run: its own file first, then those of the configuration."""
    if given is False:
        return False
    others = [] if given in (None, True) else given if isinstance(given, list) else [given]
    return [MetricsLogger(run_dir), *others]


def run_callbacks(run_dir: str, given: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks that a run folder needs and the configuration lacks."""
    folder = Path(run_dir) / "checkpoints"
    best = ModelCheckpoint(
        folder,
        "best",
        monitor="val/score/mean",
        mode="max",
        enable_version_counter=False,
    )
    # Only this one saves at an interruption, so `best` is never an interrupted state.
    last = ModelCheckpoint(folder, "last", enable_version_counter=False, save_on_exception=True)
    defaults: list[Callback] = [GracefulStop(), RunReport(), best, last]
    return [
        callback
        for callback in defaults
        if not any(isinstance(other, type(callback)) for other in given)
    ]
