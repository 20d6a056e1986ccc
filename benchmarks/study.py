"""Train the cells of a study: a suite as it is, and with one thing changed at a time.

    python benchmarks/study.py benchmarks/multitask/classic_control.yaml

appends to `benchmarks/results/multitask/<study>.csv` one row per run and task as soon as the run is
over. A study that was stopped goes on where it stopped: runs that have their rows are not repeated,
and rows of a run that has been defined otherwise since are refused. All runs of a study should be
of one commit, which each row names; a checkout of its own keeps that so while work goes on.
`python benchmarks/summary.py multitask/<study>` says what the rows come to.

A study is a YAML file:

    suite: configs/multitask/classic_control.yaml
    seeds: 10..14              # none of those that choices were made by
    episodes: 100              # of the final test, per task
    data: {total_env_steps: 400000}    # in place of the suite's; specialists have their share
    arguments: []              # for every cell
    cells:
      hard_sharing: {}         # the suite as it is
      specialists: {each_task: true}     # a network per task, as many env steps for each task
      nominal: {only: [nominal]}         # one of them; tasks that are not learned stay
      pcgrad:                  # `suite:` would replace that of the study
        overlays: [configs/methods/pcgrad.yaml]
        arguments: [--model.init_args.max_grad_norm=1]

or one whose cells are the stages of a sequence, and whose rows also say what a stage builds on
(`earlier_env_steps`, of all stages before it), how often a student does as its teacher would
(`agreement`), and after which share of the env steps from scratch the asymptote there is reached
(`catch_up`):

    sequence: configs/sequences/cartpole_physics.yaml
    seeds: 10..12
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from study_runs import Row, Run, runs_of

from lit_mtdqn.cli.seeds import parse_seeds

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """Return the commit of the working tree, with a plus where its code has been changed since."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    version = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    # Results change with every run that ends.
    words = ["git", "diff", "--quiet", "HEAD", "--", ".", ":(exclude,top)benchmarks/results"]
    return version + ("+" if subprocess.run(words, check=False).returncode else "")


def train(run: Run, place: Path, folder: Path) -> list[Row]:
    """Train in a process of its own and return the rows.

    Args:
        run: What is started.
        place: Folder of the study; suites may name code that lies there.
        folder: What the run leaves.

    Raises:
        RuntimeError: If it fails, or is ended early.
    """
    command, version = run.command(folder), commit()
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    started = time.monotonic()
    with folder.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    rows = [] if status else run.rows(folder)
    if not rows:
        raise RuntimeError(f"{folder.with_suffix('.log')} says why the run failed")
    cost = {
        "seconds": f"{time.monotonic() - started:.1f}",
        "cpu_seconds": f"{usage.ru_utime + usage.ru_stime:.1f}",
        "commit": version,
        "definition": run.definition(),
    }
    return [{**row, **cost} for row in rows]


def append(path: Path, rows: list[Row]) -> None:
    """Add rows to a results file, whole, whoever else is writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        names = next(csv.reader(file), None)
        # A file that was begun with fewer columns keeps to them.
        writer = csv.DictWriter(file, names or list(rows[0]), extrasaction="ignore")
        if names is None:
            writer.writeheader()
        writer.writerows(rows)


def done(path: Path) -> dict[tuple[str, int, str], str]:
    """Return the definitions of the runs whose rows a results file holds."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["cell"], int(row["seed"]), row["run"]): row["definition"] for row in rows}


def missing(runs: Iterable[Run], path: Path) -> list[Run]:
    """Return the runs that have no rows yet.

    Raises:
        ValueError: If there are rows of a run that has been defined otherwise since.
    """
    finished, wanted = done(path), []
    for run in runs:
        own = run.definition()
        known = {finished.get((cell, run.seed, run.name)) for cell in run.cells}
        if known == {None}:
            wanted.append(run)
        elif known != {own}:
            raise ValueError(
                f"`{', '.join(run.cells)}` must be defined as in the rows of {path}; remove them "
                f"to run it anew. Got {own} for {known}."
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
    results = RESULTS / given.study.parent.name / f"{given.study.stem}.csv"
    ends = time.monotonic() + 60 * given.minutes
    failed = []

    def work(run: Run) -> None:
        if time.monotonic() > ends:
            return
        title = run.cells[0] if len(run.cells) == 1 else given.study.stem
        folder = given.runs / given.study.stem / title / f"{run.name}_{run.seed}"
        try:
            rows = train(run, given.study.parent.resolve(), folder)
        except RuntimeError as error:
            failed.append(run)
            print(f"{title} {run.seed}: {error}", flush=True)
            return
        append(results, rows)
        for cell in run.cells:
            own = [row for row in rows if row["cell"] == cell]
            scores = ", ".join(f"{row['task']} {float(row['score']):.3f}" for row in own)
            print(f"{cell} {run.seed}: {scores} ({float(rows[0]['seconds']):.0f} s)", flush=True)
        if not given.keep:
            shutil.rmtree(folder)

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(work, missing(runs_of(study, seeds), results)))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
