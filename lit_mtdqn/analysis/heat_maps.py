"""What tasks do to one another, as coloured tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.relatedness import (
    LENGTH,
    compared_tasks,
    mean_affinities,
    mean_cosines,
    mean_lengths,
)

Array = np.ndarray
INK, MUTED, PALE = "#1f2937", "#6b7280", "#ffffff"
CELL = 0.75  # inches
FRAME = "#ea580c"
MARGIN = 2.2  # inches, for names


def gradient_agreement(metrics: Mapping[str, Curve], tasks: Sequence[str]) -> Figure | None:
    """Return a figure of the cosines between the tasks' gradients and of their lengths.

    Both are means over the run, as the callback `GradientAgreement` logged them; lengths are shares
    of their sum.

    Args:
        metrics: What the run logged, as `read_metrics` returns it.
        tasks: Names of the tasks, in the order of rows; those without gradients are left out.

    Returns:
        The figure, or None if nothing was logged of two tasks.
    """
    names = [name for name in tasks if f"{LENGTH}/{name}" in metrics]
    if len(names) < 2:
        return None
    size = CELL * len(names) + MARGIN
    figure = Figure(figsize=(size + 2 * CELL, size), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[len(names), 1])
    _draw(left, mean_cosines(metrics, names), "Cosine of gradients", "RdBu", -1.0)
    _draw(right, mean_lengths(metrics, names)[:, None], "Length", "Greys", 0.0)
    _write_names(left, names)
    right.set_xticks([])
    right.set_yticks([])
    return figure


def task_affinity(metrics: Mapping[str, Curve], tasks: Sequence[str]) -> Figure | None:
    """Return a figure of what a step for the row's task does to the loss of the column's.

    Numbers are means over the run, as the callback `TaskAffinity` logged them. 1, the darkest blue,
    is as good as a step for the column's task itself; red is harm.

    Args:
        metrics: What the run logged, as `read_metrics` returns it.
        tasks: Names of the tasks, in the order of rows; those without affinities are left out.

    Returns:
        The figure, or None if nothing was logged of two tasks.
    """
    names = compared_tasks(metrics, tasks)
    if len(names) < 2:
        return None
    size = CELL * len(names) + MARGIN
    figure = Figure(figsize=(size, size), layout="constrained")
    panel = figure.subplots()
    _draw(panel, mean_affinities(metrics, names), "Affinity of tasks", "RdBu", -1.0)
    _write_names(panel, names)
    panel.set_ylabel("a step for", color=MUTED, fontsize=9)
    panel.set_xlabel("lowers the loss of", color=MUTED, fontsize=9)
    return figure


def stage_scores(
    scores: Array, learned: Array, stages: Sequence[str], tasks: Sequence[str]
) -> Figure:
    """Return a figure of what the network of each stage reaches in each task.

    A frame marks the tasks that a stage learned: what lies below a frame is kept or forgotten, what
    lies above it came before the task was learned.

    Args:
        scores: [stages, tasks]; NaN where a task was not played.
        learned: Whether a stage learned a task, [stages, tasks].
        stages: Names of the rows.
        tasks: Names of the columns.
    """
    figure, panel = _table_figure(len(stages), len(tasks))
    _draw(panel, scores, "Score after each stage", "Blues", 0.0)
    _write_names(panel, tasks, stages)
    panel.set_xlabel("framed: learned in the stage", color=MUTED, fontsize=9)
    for row, column in np.argwhere(learned):
        corner = (column - 0.46, row - 0.46)
        panel.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=FRAME, lw=2.0))
    return figure


def transfer_gains(gains: Array, sources: Sequence[str], targets: Sequence[str]) -> Figure:
    """Return a figure of what learning the row's tasks first gained in the column's.

    Args:
        gains: Transfer ratios, [sources, targets]: 0 is no gain, 1 twice the area under the curve
            from scratch; red is harm. NaN where there is none.
        sources: Names of the rows.
        targets: Names of the columns.
    """
    figure, panel = _table_figure(len(sources), len(targets))
    _draw(panel, gains, "Transfer ratio", "RdBu", -1.0)
    _write_names(panel, targets, sources)
    panel.set_ylabel("learned first", color=MUTED, fontsize=9)
    panel.set_xlabel("learned then", color=MUTED, fontsize=9)
    return figure


def _table_figure(rows: int, columns: int) -> tuple[Figure, Axes]:
    size = (max(CELL * columns, 3 * CELL) + MARGIN, CELL * rows + 0.6 * MARGIN)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _write_names(panel: Axes, names: Sequence[str], rows: Sequence[str] | None = None) -> None:
    labels = [name.replace("_", " ") for name in names]
    panel.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
    beside = labels if rows is None else [name.replace("_", " ") for name in rows]
    panel.set_yticks(range(len(beside)), beside)


def _draw(panel: Axes, table: Array, title: str, colours: str, lowest: float) -> None:
    panel.imshow(table, cmap=colours, vmin=lowest, vmax=1.0)
    panel.set_title(title, loc="left", color=INK, fontsize=11)
    panel.tick_params(length=0, labelsize=9, labelcolor=INK)
    panel.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(table):
        dark = abs(value) > 0.6
        panel.text(
            column,
            row,
            _readable(value),
            ha="center",
            va="center",
            color=PALE if dark else INK,
            fontsize=9,
        )


def _readable(value: float) -> str:
    if np.isnan(value):
        return "\N{EN DASH}"
    # Rounded before it is signed: no cell shall say minus zero.
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")
