"""Runs on disk, finished, going on or cut off."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from lit_mtdqn.analysis.metrics_file import Curve, read_metrics
from lit_mtdqn.analysis.run_search import CONFIG, METRICS
from lit_mtdqn.analysis.specialists import is_tested, read_tests
from lit_mtdqn.types import require

Array = np.ndarray
EVALUATED = "val/score/"
OVERALL = ("mean", "worst", "held_out")


class FoundRun(NamedTuple):
    """A run.

    Attributes:
        folder: Its folder.
        metrics: What it logged, by name.
        scores: Score of each task that it learned: of its test, or of its last evaluation.
        is_tested: Whether it has come to its end, and so to its test.
        config: Its `config.yaml` as plain values; empty where it has none.
    """

    folder: Path
    metrics: Mapping[str, Curve]
    scores: dict[str, float]
    is_tested: bool
    config: Mapping[str, Any]

    @property
    def env_steps(self) -> int:
        """Env steps so far, of all tasks."""
        return max((int(curve.env_steps[-1]) for curve in self.metrics.values()), default=0)

    @property
    def score_ranges(self) -> dict[str, tuple[float, float] | None]:
        """Score range of each task that it learned."""
        tasks = self.config.get("data", {}).get("tasks", {})
        ranges = {name: (tasks.get(name) or {}).get("score_range") for name in self.scores}
        return {name: None if pair is None else (pair[0], pair[1]) for name, pair in ranges.items()}

    @property
    def command(self) -> str:
        """What repeats it, in a folder beside it."""
        if not self.config:
            return ""
        return shlex.join(["lit-mtdqn", "fit", "--config", str(self.folder / CONFIG)])


def common_tasks(methods: Mapping[str, Sequence[FoundRun]], name: str) -> list[str]:
    """Return the tasks that all runs have learned, in the order of the first.

    Args:
        methods: Runs by method, as `find_methods` returns them.
        name: What the user calls them, for complaints.

    Raises:
        ValueError: If there is none.
    """
    every = [run for runs in methods.values() for run in runs]
    tasks = [task for task in every[0].scores if all(task in run.scores for run in every)]
    require(
        bool(tasks),
        name,
        "have a task in common",
        {m: list(r[0].scores) for m, r in methods.items()},
    )
    return tasks


def score_matrix(runs: Sequence[FoundRun], tasks: Sequence[str]) -> Array:
    """Return the scores of runs, [runs, tasks]."""
    return np.array([[run.scores[task] for task in tasks] for run in runs])


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Return what a run's `config.yaml` says as plain values; nothing that it names is built.

    Args:
        folder: Of the run.
        name: What the user calls it, for complaints.

    Returns:
        An empty mapping where there is none.

    Raises:
        ValueError: If it holds anything else.
    """
    file = folder / CONFIG
    if not file.is_file():
        return {}
    must = f"have a {CONFIG} as a run leaves it"
    try:
        config = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"`{name}` must {must}. Got {file}: {reason}.") from error
    require(config is None or isinstance(config, dict), name, must, str(file))
    return config or {}


def read_run(folder: Path, name: str) -> FoundRun:
    """Return a run.

    Args:
        folder: Its folder, with what it logged.
        name: What the user calls it, for complaints.

    Raises:
        ValueError: If its files are not as a run leaves them.
    """
    config = read_config(folder, name)
    try:
        return _run(folder, config)
    except (AttributeError, KeyError, TypeError, ValueError, csv.Error) as error:
        # Of files that something else has written.
        must = "be folders of runs, as runs leave them"
        raise ValueError(f"`{name}` must {must}. Got {folder}: {error!r}.") from error


def _run(folder: Path, config: Mapping[str, Any]) -> FoundRun:
    metrics = read_metrics(folder / METRICS)
    tasks = config.get("data", {}).get("tasks", {})
    held_out = {name for name, spec in tasks.items() if (spec or {}).get("learns") is False}
    tested = is_tested(folder)
    if tested:
        rows = (row for row in read_tests(str(folder)) if row["episodes"])
        scores = {row["task"]: float(row["score"]) for row in rows}
    else:
        named = {
            metric.removeprefix(EVALUATED): curve
            for metric, curve in metrics.items()
            if metric.startswith(EVALUATED)
        }
        scores = {n: float(curve.values[-1]) for n, curve in named.items() if n not in OVERALL}
    learned = {task: score for task, score in scores.items() if task not in held_out}
    return FoundRun(folder, metrics, learned, tested, config)
