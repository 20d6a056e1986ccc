"""Say what the runs of a study come to.

    python benchmarks/multitask/summary.py classic_control --control hard_sharing

reads `benchmarks/results/multitask/classic_control.csv`, prints a Markdown table with one row per
cell, best first, and writes it beside the runs, with the mean score of every task and a picture.

- score: interquartile mean over seeds and tasks of the last network's test scores, with the 95 %
  interval of a stratified bootstrap.
- gain: the difference of the mean score to the control's, with the interval over its own bootstrap.
- worst: the worst task's mean over seeds. area: the mean score over all evaluations.
- steps: env steps per task to a score of 0.95, mean over tasks of the medians over seeds; a
  run that never got there counts with all its steps, and a ">" says so.
- of specialists: the mean over tasks of the ratio of mean scores.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np

from lit_mtdqn.analysis.statistics import interquartile_mean, stratified_bootstrap_interval

RESULTS = Path(__file__).parents[1] / "results" / "multitask"
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
    env_steps: float
    parameters: int
    seconds: float


def read_cells(path: Path) -> dict[str, Cell]:
    """Return the cells of a results file; seeds that lack a task are left out."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    tasks = tuple(dict.fromkeys(row["task"] for row in rows))
    by_cell: dict[str, dict[int, dict[str, dict[str, str]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in rows:
        by_cell[row["cell"]][int(row["seed"])][row["task"]] = row
    return {name: _cell(name, tasks, seeds) for name, seeds in by_cell.items()}


def _cell(name: str, tasks: tuple[str, ...], seeds: dict[int, Rows]) -> Cell:
    whole = [rows for rows in seeds.values() if set(rows) == set(tasks)]
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
        float(np.mean([sum(float(row["env_steps"]) for row in own) for own in runs])) / len(tasks),
        int(np.mean([sum(int(row["parameters"]) for row in own) for own in runs])),
        float(np.mean([sum(float(row["seconds"]) for row in own) for own in runs])),
    )


def gain(cell: Cell, control: Cell, generator: np.random.Generator) -> tuple[float, float, float]:
    """Return the difference of mean scores and the ends of its 95 % bootstrap interval."""

    def means(scores: Array) -> Array:
        chosen = generator.integers(len(scores), size=(RESAMPLES, *scores.shape))
        drawn: Array = np.take_along_axis(scores[None], chosen, axis=1).mean((1, 2))
        return drawn

    difference = means(cell.scores) - means(control.scores)
    low, high = np.quantile(difference, [0.025, 0.975])
    return float(cell.scores.mean() - control.scores.mean()), float(low), float(high)


def steps_to_threshold(cell: Cell) -> str:
    """Return the mean over tasks of the median env steps to the threshold."""
    never = np.isnan(cell.steps)
    median = np.median(np.where(never, cell.env_steps, cell.steps), axis=0)
    late = (never.mean(0) >= 0.5).any()
    return f"{'>' if late else ''}{median.mean() / 1000:.0f}k"


def table(cells: dict[str, Cell], control: str, specialists: str) -> list[str]:
    """Return the lines of the Markdown table."""
    generator = np.random.default_rng(0)
    names = ["cell", "seeds", "score", f"gain over {control}", "worst", "area", "steps"]
    names += ["of specialists", "parameters", "time"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    best_first = sorted(cells.values(), key=lambda c: -interquartile_mean(c.scores))
    for cell in best_first:
        low, high = stratified_bootstrap_interval(cell.scores, generator, resamples=RESAMPLES)
        middle, least, most = gain(cell, cells[control], generator)
        difference = "" if cell.name == control else f"{middle:+.3f} ({least:+.3f}, {most:+.3f})"
        share = ""
        if specialists in cells:
            ratio = cell.scores.mean(0) / cells[specialists].scores.mean(0)
            share = f"{ratio.mean():.3f}"
        fields = [
            cell.name,
            str(len(cell.scores)),
            f"{interquartile_mean(cell.scores):.3f} ({low:.3f}, {high:.3f})",
            difference,
            f"{cell.scores.mean(0).min():.3f}",
            f"{cell.areas.mean():.3f}",
            steps_to_threshold(cell),
            share,
            f"{cell.parameters / 1000:.0f}k",
            f"{cell.seconds / cells[control].seconds:.2f}",
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
    mpl.use("Agg")
    from matplotlib import pyplot

    generator = np.random.default_rng(0)
    ordered = sorted(cells.values(), key=lambda c: interquartile_mean(c.scores))
    figure, axes = pyplot.subplots(figsize=(7, 0.6 + 0.28 * len(ordered)), layout="constrained")
    colors = mpl.color_sequences["tab10"]
    for task, name in enumerate(ordered[0].tasks):
        values = [cell.scores[:, task].mean() for cell in ordered]
        axes.scatter(
            values, range(len(ordered)), s=14, color=colors[task % 10], label=name, alpha=0.7
        )
    for place, cell in enumerate(ordered):
        ends = stratified_bootstrap_interval(cell.scores, generator, resamples=RESAMPLES)
        axes.plot(ends, [place, place], color="black", linewidth=2, zorder=3)
        axes.plot(
            interquartile_mean(cell.scores), place, "D", color="black", markersize=5, zorder=4
        )
    axes.axvline(interquartile_mean(cells[control].scores), color="0.7", linewidth=1, zorder=0)
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
    parser.add_argument("study", help="name of the study")
    parser.add_argument("--control", default="hard_sharing")
    parser.add_argument("--specialists", default="specialists")
    given = parser.parse_args()
    cells = read_cells(RESULTS / f"{given.study}.csv")
    lines = [*table(cells, given.control, given.specialists), "", *task_table(cells)]
    print("\n".join(lines))
    command = f"`python {shlex.join(sys.argv)}`"
    text = "\n".join([f"# {given.study}", "", command, "", *lines, ""])
    (RESULTS / f"{given.study}.md").write_text(text)
    draw(cells, given.control, RESULTS / f"{given.study}.png")


if __name__ == "__main__":
    main()
