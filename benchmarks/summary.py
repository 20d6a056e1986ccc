"""Say what the runs of a study come to.

    python benchmarks/summary.py multitask/classic_control

reads `benchmarks/results/multitask/classic_control.csv` and of the study its `control`
(hard_sharing if it names none) and `tasks` (all), prints a Markdown table with one row per cell,
best first, and writes it beside the runs, with the mean score of every task and a picture. Tasks
are those that all cells have been tested in.

- score: interquartile mean over seeds and tasks of the last network's test scores, with the 95 %
  interval of a bootstrap over runs, which is rather narrow for five of them.
- gain: the difference of the mean score to the control's, with the 95 % interval of Welch's t over
  the seeds' means.
- worst: the worst task's mean over seeds. area: the mean score over all evaluations.
- steps: env steps per task to a score of 0.95, mean over tasks of the medians over seeds; never if
  half of the seeds do not get there in some task.
- of specialists: the ratio of mean scores, with the interval of a bootstrap over runs.
- time: CPU seconds of all runs of a seed, evaluations and report included, over the control's.

Of a study of a sequence it is one table with a row per stage and task: scores, and what
`sequence_summary.py` adds.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import yaml
from matplotlib.figure import Figure
from scipy.stats import ttest_ind
from sequence_summary import stage_table

from lit_mtdqn.analysis.statistics import (
    interquartile_mean,
    resampled_scores,
    stratified_bootstrap_interval,
)

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RESAMPLES = 5_000
Array = np.ndarray
Rows = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Cell:
    """What the runs of one cell found, arrays [seeds, tasks]."""

    name: str
    tasks: tuple[str, ...]
    scores: Array
    areas: Array
    steps: Array
    parameters: int
    seconds: float
    whole_runs: bool

    def interval(self, generator: np.random.Generator) -> tuple[float, float]:
        """Return the 95 % interval of the interquartile mean."""
        return stratified_bootstrap_interval(
            self.scores, generator, resamples=RESAMPLES, whole_runs=self.whole_runs
        )

    def resampled_means(self, generator: np.random.Generator) -> Array:
        """Return mean scores of resampled runs, [RESAMPLES]."""
        drawn = resampled_scores(self.scores, generator, RESAMPLES, whole_runs=self.whole_runs)
        means: Array = drawn.mean((1, 2))
        return means


def read_cells(path: Path, only: Collection[str] = ()) -> dict[str, Cell]:
    """Return the cells of a results file, with the tasks that all cells have been tested in.

    Seeds that lack one of these tasks are left out.

    Args:
        path: The file.
        only: Names of tasks, of which no others are compared; none allows all.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = dict.fromkeys(row["task"] for row in rows if not only or row["task"] in only)
    tested = {cell: {row["task"] for row in rows if row["cell"] == cell} for cell in _cells(rows)}
    tasks = tuple(task for task in names if all(task in found for found in tested.values()))
    if set(tasks) != set(names):
        print(f"Only {', '.join(tasks)} of {', '.join(names)}: not all cells have the others.")
    by_cell: dict[str, dict[int, Rows]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        by_cell[row["cell"]][int(row["seed"])][row["task"]] = row
    return {name: _cell(name, tasks, seeds) for name, seeds in by_cell.items()}


def _cells(rows: list[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(row["cell"] for row in rows))


def _cell(name: str, tasks: tuple[str, ...], seeds: dict[int, Rows]) -> Cell:
    whole = [rows for rows in seeds.values() if set(rows) >= set(tasks)]
    if len(whole) < len(seeds):
        print(f"{name}: {len(seeds) - len(whole)} of {len(seeds)} seeds are not complete.")
    if not whole:
        raise ValueError(f"`{name}` must hold a seed with all tasks {tasks}. Got {dict(seeds)}.")

    def table(column: str, missing: float = np.nan) -> Array:
        return np.array([[float(rows[t][column] or missing) for t in tasks] for rows in whole])

    # Of a run with several tasks every row says what the whole run took.
    runs = [{row["run"]: row for row in rows.values()}.values() for rows in whole]
    return Cell(
        name,
        tasks,
        table("score"),
        table("area"),
        table("steps_to_threshold"),
        int(np.mean([sum(int(row["parameters"]) for row in own) for own in runs])),
        float(np.mean([sum(float(row["cpu_seconds"] or 0) for row in own) for own in runs])),
        all(len(own) == 1 for own in runs),
    )


def gain(cell: Cell, control: Cell) -> tuple[float, float, float]:
    """Return the difference of mean scores and the ends of its 95 % interval.

    One seed says nothing of others: the ends are NaN.
    """
    first, second = cell.scores.mean(1), control.scores.mean(1)
    difference = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2:
        return difference, np.nan, np.nan
    if first.std() + second.std() == 0.0:
        return difference, difference, difference
    interval = ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return difference, float(interval.low), float(interval.high)


def gain_text(cell: Cell, control: Cell) -> str:
    """Return a gain with its interval, or that there is one seed alone."""
    middle, low, high = gain(cell, control)
    return f"{middle:+.3f} " + ("(one seed)" if np.isnan(low) else f"({low:+.3f}, {high:+.3f})")


def ratio(cell: Cell, other: Cell, generator: np.random.Generator) -> tuple[float, float, float]:
    """Return the ratio of mean scores and the ends of its 95 % bootstrap interval."""
    ratios = cell.resampled_means(generator) / other.resampled_means(generator)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(cell.scores.mean() / other.scores.mean()), float(low), float(high)


def relative_time(cell: Cell, control: Cell) -> str:
    """Return the CPU time over the control's, or nothing where one was not measured."""
    if not (cell.seconds and control.seconds):
        return ""
    return f"{cell.seconds / control.seconds:.2f}x"


def steps_to_threshold(cell: Cell) -> str:
    """Return the mean over tasks of the median env steps to the threshold."""
    median = np.median(np.where(np.isnan(cell.steps), np.inf, cell.steps), axis=0)
    return f"{median.mean() / 1000:.0f}k" if np.isfinite(median).all() else "never"


def table(cells: dict[str, Cell], control: str, specialists: str) -> list[str]:
    """Return the lines of the Markdown table."""
    generator = np.random.default_rng(0)
    names = ["cell", "seeds", "score", f"gain over {control}", "worst", "area", "steps"]
    names += ["of specialists", "parameters", "time"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    best_first = sorted(cells.values(), key=lambda c: -interquartile_mean(c.scores))
    for cell in best_first:
        low, high = cell.interval(generator)
        difference = "" if cell.name == control else gain_text(cell, cells[control])
        score = f"{interquartile_mean(cell.scores):.3f} ({low:.3f}, {high:.3f})"
        share = ""
        if specialists in cells and cell.name != specialists:
            middle, low, high = ratio(cell, cells[specialists], generator)
            share = f"{middle:.3f} ({low:.3f}, {high:.3f})"
        fields = [
            cell.name,
            str(len(cell.scores)),
            score,
            difference,
            f"{cell.scores.mean(0).min():.3f}",
            f"{cell.areas.mean():.3f}",
            steps_to_threshold(cell),
            share,
            f"{cell.parameters / 1000:.0f}k",
            relative_time(cell, cells[control]),
        ]
        lines.append("| " + " | ".join(fields) + " |")
    return lines


def task_table(cells: dict[str, Cell]) -> list[str]:
    """Return the lines of a Markdown table of every task's mean score and its range over seeds."""
    tasks = next(iter(cells.values())).tasks
    lines = ["| cell | " + " | ".join(tasks) + " |", "|" + "---|" * (len(tasks) + 1)]
    for cell in cells.values():
        columns = zip(cell.scores.mean(0), cell.scores.min(0), cell.scores.max(0), strict=True)
        fields = [f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in columns]
        lines.append("| " + " | ".join([cell.name, *fields]) + " |")
    return lines


def draw(cells: dict[str, Cell], control: str, path: Path) -> None:
    """Draw every cell's score with its interval, and its tasks as dots."""
    generator = np.random.default_rng(0)
    ordered = sorted(cells.values(), key=lambda c: interquartile_mean(c.scores))
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    colors = mpl.color_sequences["tab10"]
    for task, name in enumerate(ordered[0].tasks):
        values = [cell.scores[:, task].mean() for cell in ordered]
        axes.scatter(
            values, range(len(ordered)), s=14, color=colors[task % 10], label=name, alpha=0.7
        )
    for place, cell in enumerate(ordered):
        ends = cell.interval(generator)
        axes.plot(ends, [place, place], color="black", linewidth=2, zorder=3)
        axes.plot(
            interquartile_mean(cell.scores), place, "D", color="black", markersize=5, zorder=4
        )
    axes.axvline(interquartile_mean(cells[control].scores), color="0.7", linewidth=1, zorder=0)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_yticks(range(len(ordered)), [cell.name.replace("_", " ") for cell in ordered])
    axes.set_xlabel("score: interquartile mean with 95 % interval, dots are tasks")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", help="folder and name of the study")
    given = parser.parse_args()
    study = yaml.safe_load((HERE / f"{given.study}.yaml").read_text())
    results = RESULTS / given.study
    if "sequence" in study:
        lines = stage_table(results.with_suffix(".csv"), study.get("reference", {}))
    else:
        control = study.get("control", "hard_sharing")
        cells = read_cells(results.with_suffix(".csv"), study.get("tasks", ()))
        lines = [*table(cells, control, "specialists"), "", *task_table(cells)]
        draw(cells, control, results.with_suffix(".png"))
    print("\n".join(lines))
    command = f"`python {shlex.join(sys.argv)}`"
    text = "\n".join([f"# {Path(given.study).name}", "", command, "", *lines, ""])
    results.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
