"""Train the cells of a study: a suite as it is, and with one thing changed at a time.

    python benchmarks/multitask/study.py benchmarks/multitask/classic_control.yaml

appends to `benchmarks/results/multitask/<study>.csv` one row per run and task as soon as the run is
over. A study that was stopped goes on where it stopped: runs that have their rows are not repeated,
and rows of a run that has been defined otherwise since are refused. All runs of a study should be
of one commit, which each row names; a checkout of its own keeps that so while work goes on.
`python benchmarks/multitask/summary.py <study>` says what the rows come to.

A study is a YAML file:

    suite: configs/multitask/classic_control.yaml
    seeds: 10..14              # none of those that choices were made by
    episodes: 100              # of the final test, per task
    data: {total_env_steps: 400000}    # in place of the suite's; specialists have their share
    arguments: []              # for every cell
    cells:
      hard_sharing: {}         # the suite as it is
      specialists: {each_task: true}     # a network per task, as many env steps for each task
      nominal: {only: [nominal]}         # one of them; tasks that do not act stay
      pcgrad:                  # `suite:` would replace that of the study
        overlays: [configs/methods/pcgrad.yaml]
        arguments: [--model.init_args.max_grad_norm=1]
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.cli.seeds import parse_seeds

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "multitask"
SCORES = Path("report", "test_scores.csv")
# Of a task's score at evaluations: the first one to reach it counts as the time to learn the task.
THRESHOLD = 0.95
COLUMNS = (
    *("cell", "seed", "run", "task", "score", "mean", "std", "success", "episodes"),
    *("area", "steps_to_threshold", "env_steps", "updates", "parameters", "seconds"),
    *("cpu_seconds", "commit", "definition"),
)


@dataclass(frozen=True)
class Run:
    """One training: a cell with a seed, or one specialist of it."""

    cell: str
    seed: int
    name: str
    suite: Path
    overlays: tuple[str, ...]
    arguments: tuple[str, ...]
    only: tuple[str, ...]


def runs_of(study: dict[str, Any], seeds: list[int]) -> Iterator[Run]:
    """Yield all runs of a study, seed by seed, so that a stopped study is balanced."""
    for seed in seeds:
        for cell, change in study["cells"].items():
            suite = Path(change.get("suite", study["suite"]))
            acting = acting_tasks(yaml.safe_load(suite.read_text()))
            arguments = (*study.get("arguments", ()), *change.get("arguments", ()))
            overlays = tuple(change.get("overlays", ()))
            groups = [(task,) for task in acting] if change.get("each_task") else [()]
            for group in groups:
                only = group or tuple(change.get("only", ()))
                name = "+".join(only) or "all"
                yield Run(cell, seed, name, suite, overlays, arguments, only)


def acting_tasks(suite: dict[str, Any]) -> list[str]:
    """Return the names of a suite's tasks that are played."""
    return [name for name, task in suite["data"]["tasks"].items() if task.get("acts", True)]


def reduced(suite: dict[str, Any], only: tuple[str, ...]) -> dict[str, Any]:
    """Return a suite with some of its acting tasks, none for all, and as many env steps each."""
    if not only:
        return suite
    data = suite["data"]
    acting = acting_tasks(suite)
    dropped = set(acting) - set(only)
    tasks = {name: task for name, task in data["tasks"].items() if name not in dropped}
    steps = {
        name: data[name] * len(only) // len(acting)
        for name in ("total_env_steps", "evaluate_every_env_steps")
        if name in data
    }
    return {**suite, "data": {**data, **steps, "tasks": tasks}}


def suite_of(run: Run, study: dict[str, Any]) -> dict[str, Any]:
    """Return the suite of a run, with the study's data settings and the run's tasks."""
    suite = yaml.safe_load(run.suite.read_text())
    suite["data"].update(study.get("data", {}))
    return reduced(suite, run.only)


def command_of(run: Run, study: dict[str, Any], folder: Path) -> list[str]:
    """Write a run's suite beside its folder and return its command."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(suite_of(run, study)))
    return [
        *(sys.executable, "-m", "lit_mtdqn", "fit", f"--config={config}"),
        *(f"--config={overlay}" for overlay in run.overlays),
        *(f"--seed_everything={run.seed}", f"--run_dir={folder}", "--overwrite=true"),
        *(f"--data.test_episodes={study.get('episodes', 100)}", *run.arguments),
        "--trainer.enable_progress_bar=false",
        *("--trainer.callbacks+=lit_mtdqn.callbacks.RunReport", "--trainer.callbacks.gifs=false"),
    ]


def definition_of(run: Run, study: dict[str, Any]) -> str:
    """Return a short hash of all that a study says of a run."""
    overlays = [yaml.safe_load(Path(overlay).read_text()) for overlay in run.overlays]
    parts = [suite_of(run, study), overlays, run.arguments, study.get("episodes", 100)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def commit() -> str:
    """Return the commit of the working tree, with a plus where its code has been changed since."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    version = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    # Results change with every run that ends.
    words = ["git", "diff", "--quiet", "HEAD", "--", ".", ":(exclude,top)benchmarks/results"]
    return version + ("+" if subprocess.run(words, check=False).returncode else "")


def train(run: Run, study: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Train in a process of its own and return the rows."""
    command, version = command_of(run, study, folder), commit()
    # Suites may name what lies beside this file.
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    started = time.monotonic()
    with folder.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    # Told to end early, a run ends well and without its report.
    if status or not (folder / SCORES).is_file():
        raise RuntimeError(f"{folder.with_suffix('.log')} says why the run failed")
    cost = {
        "seconds": f"{time.monotonic() - started:.1f}",
        "cpu_seconds": f"{usage.ru_utime + usage.ru_stime:.1f}",
        "commit": version,
        "definition": definition_of(run, study),
    }
    return [{**row, **cost} for row in rows_of(run, folder)]


def rows_of(run: Run, folder: Path) -> list[dict[str, Any]]:
    """Return what a run has reached, one row per task."""
    metrics = read_metrics(folder / "metrics.csv")
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    weights = checkpoint["state_dict"].items()
    parameters = sum(w.numel() for name, w in weights if name.startswith("network."))
    acting = [name for name in metrics if name.startswith("rollout/episode_return/")]
    with (folder / SCORES).open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["episodes"]]
    rows = []
    for row in found:
        scores = metrics[f"val/score/{row['task']}"]
        reached = scores.env_steps[scores.values >= THRESHOLD] / len(acting)
        rows.append(
            {
                "cell": run.cell,
                "seed": run.seed,
                "run": run.name,
                "task": row["task"],
                **{name: row.get(name, "") for name in ("score", "mean", "std", "success")},
                "episodes": row["episodes"],
                "area": f"{scores.values.mean():.4f}",
                "steps_to_threshold": int(reached[0]) if len(reached) else "",
                "env_steps": int(metrics["env_steps"].values[-1]),
                "updates": int(metrics["updates"].values[-1]),
                "parameters": parameters,
            }
        )
    return rows


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a results file, whole, whoever else is writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def done(path: Path) -> dict[tuple[str, int, str], str]:
    """Return the definitions of the runs whose rows a results file holds."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["cell"], int(row["seed"]), row["run"]): row["definition"] for row in rows}


def missing(runs: Iterable[Run], study: dict[str, Any], path: Path) -> list[Run]:
    """Return the runs that have no rows yet.

    Raises:
        ValueError: If there are rows of a run that has been defined otherwise since.
    """
    finished, wanted = done(path), []
    for run in runs:
        known, own = finished.get((run.cell, run.seed, run.name)), definition_of(run, study)
        if known is None:
            wanted.append(run)
        elif known != own:
            raise ValueError(
                f"`{run.cell}` must be defined as in the rows of {path}; remove them to run it "
                f"anew. Got {own} for {known}."
            )
    return wanted


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--seeds", help="such as 10..14; default: the study's")
    parser.add_argument("--cells", default="", help="names, separated by commas; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--minutes", type=float, default=150, help="start no run after so many")
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"))
    parser.add_argument("--keep", action="store_true", help="keep the folders of runs")
    given = parser.parse_args()
    study = yaml.safe_load(given.study.read_text())
    seeds = parse_seeds(given.seeds or study["seeds"])
    if given.cells:
        study["cells"] = {cell: study["cells"][cell] for cell in given.cells.split(",")}
    results = RESULTS / f"{given.study.stem}.csv"
    ends = time.monotonic() + 60 * given.minutes
    failed = []

    def work(run: Run) -> None:
        if time.monotonic() > ends:
            return
        folder = given.runs / given.study.stem / run.cell / f"{run.name}_{run.seed}"
        try:
            rows = train(run, study, folder)
        except RuntimeError as error:
            failed.append(run)
            print(f"{run.cell} {run.seed}: {error}", flush=True)
            return
        append(results, rows)
        scores = ", ".join(f"{row['task']} {float(row['score']):.3f}" for row in rows)
        print(f"{run.cell} {run.seed}: {scores} ({float(rows[0]['seconds']):.0f} s)", flush=True)
        if not given.keep:
            shutil.rmtree(folder)

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(work, missing(runs_of(study, seeds), study, results)))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
