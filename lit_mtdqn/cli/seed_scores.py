"""What several seeds of one command come to, on Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger

from lit_mtdqn.analysis.metrics_file import Curve, read_metrics
from lit_mtdqn.analysis.statistics import interquartile_mean
from lit_mtdqn.cli.recording import as_list
from lit_mtdqn.loggers import WandbRun

SCORE, IQM = "val/score/mean", "val/score/iqm"
# What W&B's agent says of its one run, and W&B's service of this process.
OF_THIS_PROCESS = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_SERVICE")


class SeedScores:
    """Logs the interquartile mean of the scores of several runs, while they go on.

    The first evaluations of all runs make the first row, their second ones the second; its env
    steps are their mean.

    Args:
        folders: Folders of the runs.
        logger: Takes the rows.
    """

    def __init__(self, folders: Sequence[Path], logger: Logger) -> None:
        self._files = [folder / "metrics.csv" for folder in folders]
        self._logger = logger
        self._rows = 0

    def log(self) -> None:
        """Log the rows that all runs have by now and that are not logged yet."""
        if not all(file.is_file() for file in self._files):
            return
        curves = [_score(file) for file in self._files]
        whole = min(len(curve.values) for curve in curves)
        for row in range(self._rows, whole):
            score = interquartile_mean(np.array([curve.values[row] for curve in curves]))
            env_steps = round(np.mean([curve.env_steps[row] for curve in curves]))
            self._logger.log_metrics({IQM: score}, step=env_steps)
        self._rows = max(self._rows, whole)


def wandb_logger_of_seeds(given: Any, run_dir: str) -> WandbRun | None:
    """Return a logger of what several seeds have in common, if each of them logs to W&B.

    Args:
        given: The parsed option `trainer.logger`.
        run_dir: Folder of all runs.
    """
    for entry in as_list(given) if not isinstance(given, bool) else []:
        if entry.class_path.rpartition(".")[2] == WandbRun.__name__:
            options = {**entry.init_args, **entry.get("dict_kwargs", {})}
            return WandbRun(**{**options, "run_dir": run_dir, "log_model": False})
    return None


def environment_of_seeds(logger: WandbRun) -> dict[str, str]:
    """Return the environment of the processes of single seeds: W&B runs of their own, in one group.

    Args:
        logger: That of what they have in common, whose run they would else take for theirs.
    """
    kept = {name: text for name, text in os.environ.items() if name not in OF_THIS_PROCESS}
    return {**kept, "WANDB_RUN_GROUP": logger.experiment.id}


def _score(file: Path) -> Curve:
    nothing = Curve(np.zeros(0, np.int64), np.zeros(0))
    return read_metrics(file).get(SCORE, nothing)
