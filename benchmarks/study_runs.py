"""The runs that a study is made of: how each is started, defined and read."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from sequence_summary import UNKNOWN

from lit_mtdqn.analysis.metrics_file import Curve, read_metrics
from lit_mtdqn.analysis.sequence_report import after_few_episodes
from lit_mtdqn.analysis.specialists import read_tests
from lit_mtdqn.analysis.transfer import asymptote, at_own_steps
from lit_mtdqn.cli.sequence_file import SequenceFile, Stage, read_sequence

# Of a task's score at evaluations: the first one to reach it counts as the time to learn the task.
THRESHOLD = 0.95
REPORT = ("--trainer.callbacks+=lit_mtdqn.callbacks.RunReport", "--trainer.callbacks.gifs=false")
METRICS = "metrics.csv"
# Of a sequence's report, against the stage from scratch.
GAINS = ("jumpstart", "transfer_ratio")
Row = dict[str, Any]


class Run(Protocol):
    """What a study starts as one command."""

    @property
    def seed(self) -> int:
        """The seed."""

    @property
    def name(self) -> str:
        """What tells it from the other runs of its cell."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells that it leaves rows of."""

    def definition(self) -> str:
        """Return a short hash of all that the study says of it."""

    def command(self, folder: Path) -> list[str]:
        """Return its command line, which leaves everything in a folder."""

    def rows(self, folder: Path) -> list[Row]:
        """Return what it has reached, a row per cell and task; none if it was ended early."""


@dataclass(frozen=True)
class FitRun:
    """One training: a cell with a seed, or one specialist of it."""

    cell: str
    seed: int
    name: str
    study: dict[str, Any]
    suite: Path
    overlays: tuple[str, ...]
    arguments: tuple[str, ...]
    only: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """The one cell."""
        return (self.cell,)

    @property
    def whole_suite(self) -> dict[str, Any]:
        """The suite with the study's data settings and the run's tasks."""
        suite = yaml.safe_load(self.suite.read_text())
        suite["data"].update(self.study.get("data", {}))
        return reduced(suite, self.only)

    def definition(self) -> str:
        """Return a short hash of all that the study says of it."""
        overlays = [yaml.safe_load(Path(overlay).read_text()) for overlay in self.overlays]
        return _hash([self.whole_suite, overlays, self.arguments, _episodes(self.study)])

    def command(self, folder: Path) -> list[str]:
        """Write the suite beside the folder and return the command line."""
        folder.mkdir(parents=True, exist_ok=True)
        config = folder.with_suffix(".yaml")
        config.write_text(yaml.safe_dump(self.whole_suite))
        return [
            *(sys.executable, "-m", "lit_mtdqn", "fit", f"--config={config}"),
            *(f"--config={overlay}" for overlay in self.overlays),
            *(f"--seed_everything={self.seed}", f"--run_dir={folder}", "--overwrite=true"),
            "--save_replays=false",
            *(f"--data.test_episodes={_episodes(self.study)}", *self.arguments),
            *("--trainer.enable_progress_bar=false", *REPORT),
        ]

    def rows(self, folder: Path) -> list[Row]:
        """Return what it has reached, a row per task."""
        return rows_of(folder, self.cell, self.seed, self.name)


@dataclass(frozen=True)
class SequenceRun:
    """One sequence of trainings, whose stages are the cells."""

    seed: int
    study: dict[str, Any]
    name: str = "all"

    @cached_property
    def sequence(self) -> SequenceFile:
        """What the file of the sequence says."""
        return read_sequence(self.study["sequence"])

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages by name."""
        return {stage.name: stage for stage in self.sequence.stages}

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of the stages."""
        return tuple(self.stages)

    def definition(self) -> str:
        """Return a short hash of the sequence and its configurations."""
        configs = {config for stage in self.sequence.stages for config in stage.configs}
        texts = [yaml.safe_load(Path(config).read_text()) for config in sorted(configs)]
        return _hash([self.sequence, texts, self.study.get("arguments", ()), _episodes(self.study)])

    def command(self, folder: Path) -> list[str]:
        """Return the command line; stages that are finished in the folder are not repeated."""
        folder.mkdir(parents=True, exist_ok=True)
        return [
            *(sys.executable, "-m", "lit_mtdqn", "sequence", self.study["sequence"]),
            *(f"--run_dir={folder}", f"--seed_everything={self.seed}", "--save_replays=false"),
            *(f"--data.test_episodes={_episodes(self.study)}", *self.study.get("arguments", ())),
            *("--trainer.enable_progress_bar=false", *REPORT),
        ]

    def rows(self, folder: Path) -> list[Row]:
        """Return what the stages have reached, a row per stage and tested task."""
        report = folder / "report" / "scores.csv"
        if not report.is_file():
            return []
        told = _by_stage_and_task(report)
        gains = _by_stage_and_task(report.with_name("transfer.csv"))
        metrics = {name: read_metrics(folder / name / METRICS) for name in self.stages}
        rows = []
        for name, stage in self.stages.items():
            curves, scratch = metrics[name], metrics.get(stage.against or "", {})
            earlier = [_last(metrics[one], "env_steps") for one in self.before(stage)]
            for row in rows_of(folder / name, name, self.seed, self.name):
                task = row["task"]
                learns, scratch_learns = (
                    told.get((one or "", task), {}).get("role") == "learns"
                    for one in (name, stage.against)
                )
                both = [
                    own_curve(found, task) if learns and scratch_learns else None
                    for found in (curves, scratch)
                ]
                gained = gains.get((name, task), {})
                rows.append(
                    {
                        **row,
                        "role": told[name, task]["role"],
                        "agreement": _rounded(told[name, task]["agreement"]),
                        "catch_up": catch_up(*both),
                        **{one: _rounded(gained.get(one, "")) for one in GAINS},
                        "after_episodes": after_episodes(curves, task) if learns else "",
                        "earlier_env_steps": sum(earlier),
                    }
                )
        return rows

    def before(self, stage: Stage) -> list[str]:
        """Return all stages that a stage builds on, those that these build on included."""
        found: dict[str, None] = {}
        for name in stage.needs:
            found |= dict.fromkeys([*self.before(self.stages[name]), name])
        return list(found)


def runs_of(study: dict[str, Any], seeds: list[int]) -> Iterator[Run]:
    """Yield all runs of a study, seed by seed, so that a stopped study is balanced."""
    for seed in seeds:
        if "sequence" in study:
            yield SequenceRun(seed, study)
            continue
        for cell, change in study["cells"].items():
            suite = Path(change.get("suite", study["suite"]))
            learning = learning_tasks(yaml.safe_load(suite.read_text()))
            arguments = (*study.get("arguments", ()), *change.get("arguments", ()))
            overlays = tuple(change.get("overlays", ()))
            groups = [(task,) for task in learning] if change.get("each_task") else [()]
            for group in groups:
                only = group or tuple(change.get("only", ()))
                name = "+".join(only) or "all"
                yield FitRun(cell, seed, name, study, suite, overlays, arguments, only)


def learning_tasks(suite: dict[str, Any]) -> list[str]:
    """Return the names of a suite's tasks that are played and learned."""
    needed = ("acts", "learns")
    tasks = suite["data"]["tasks"].items()
    return [name for name, task in tasks if all(task.get(key, True) for key in needed)]


def reduced(suite: dict[str, Any], only: tuple[str, ...]) -> dict[str, Any]:
    """Return a suite with some of its learning tasks, none for all, and as many env steps each."""
    if not only:
        return suite
    data = suite["data"]
    learning = learning_tasks(suite)
    dropped = set(learning) - set(only)
    tasks = {name: task for name, task in data["tasks"].items() if name not in dropped}
    steps = {
        name: data[name] * len(only) // len(learning)
        for name in ("total_env_steps", "evaluate_every_env_steps")
        if name in data
    }
    return {**suite, "data": {**data, **steps, "tasks": tasks}}


def rows_of(folder: Path, cell: str, seed: int, name: str) -> list[Row]:
    """Return what one training has reached, a row per task; none if it was ended early."""
    # Told to end early, a run ends well and without its report.
    found = [row for row in read_tests(str(folder)) if row["episodes"]]
    if not found:
        return []
    metrics = read_metrics(folder / METRICS)
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    weights = checkpoint["state_dict"].items()
    played = sum(name.startswith("rollout/episode_return/") for name in metrics)
    rows = []
    for row in found:
        scores = metrics[f"val/score/{row['task']}"]
        reached = scores.env_steps[scores.values >= THRESHOLD] / max(played, 1)
        rows.append(
            {
                "cell": cell,
                "seed": seed,
                "run": name,
                "task": row["task"],
                **{name: row.get(name, "") for name in ("score", "mean", "std", "success")},
                "episodes": row["episodes"],
                "area": f"{scores.values.mean():.4f}",
                "steps_to_threshold": int(reached[0]) if len(reached) else "",
                "env_steps": _last(metrics, "env_steps"),
                "updates": _last(metrics, "updates"),
                "parameters": sum(w.numel() for key, w in weights if key.startswith("network.")),
            }
        )
    return rows


def own_curve(metrics: Mapping[str, Curve], task: str) -> Curve | None:
    """Return a task's scores over its own env steps."""
    curve = metrics.get(f"val/score/{task}")
    return curve and at_own_steps(curve, metrics.get(f"rollout/env_steps/{task}"))


def catch_up(curve: Curve | None, scratch: Curve | None) -> str:
    """Return the share of the env steps from scratch after which the asymptote there is reached.

    Curves are read where a line through their evaluations first crosses it; nothing where the task
    is not learned in both runs, or from scratch there was nothing to learn.
    """
    if curve is None or scratch is None:
        return ""
    goal = asymptote(scratch)
    ours, theirs = (_crossing(one, goal) for one in (curve, scratch))
    if not theirs:
        return ""
    return "never" if ours is None else f"{ours / theirs:.4f}"


def after_episodes(metrics: Mapping[str, Curve], task: str) -> str:
    """Return a task's scores after few training episodes, or nothing where none can be told."""
    found = after_few_episodes(task, metrics)
    texts = [UNKNOWN if score is None else f"{score:.4f}" for score in found]
    return "" if set(texts) == {UNKNOWN} else " ".join(texts)


def _by_stage_and_task(path: Path) -> dict[tuple[str, str], Row]:
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {(row["stage"], row["task"]): row for row in csv.DictReader(file)}


def _rounded(number: str) -> str:
    return f"{float(number):.4f}" if number else ""


def _crossing(curve: Curve, goal: float) -> float | None:
    steps, values = curve
    above = np.flatnonzero(values >= goal)
    if not len(above):
        return None
    at = int(above[0])
    if at == 0:
        return float(steps[0])
    return float(np.interp(goal, values[at - 1 : at + 1], steps[at - 1 : at + 1]))


def _last(metrics: dict[str, Curve], name: str) -> int:
    return int(metrics[name].values[-1])


def _episodes(study: dict[str, Any]) -> int:
    episodes: int = study.get("episodes", 100)
    return episodes


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]
