"""Scores over all stages of a sequence as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.panels import (
    COLOURS,
    GRID,
    INK,
    MUTED,
    draw_runs,
    finish_figure,
    font,
    make_panels,
    style_panel,
    write_header,
)
from lit_mtdqn.types import require

STRONG, THIN = 2.4, 1.1  # points


class Segment(NamedTuple):
    """A stage as it is drawn.

    Attributes:
        name: Its name.
        begin: Env steps of all stages before it.
        end: Those of itself added.
        curves: Scores over its own env steps, by task; one of each run.
        learned: Names of the tasks that it learns.
        is_control: Whether it only stands for learning from scratch.
    """

    name: str
    begin: int
    end: int
    curves: Mapping[str, Sequence[Curve]]
    learned: Sequence[str]
    is_control: bool


def sequence_curves(segments: Sequence[Segment], tasks: Sequence[str]) -> Figure:
    """Return a figure with a panel per task: its score over the env steps of all stages.

    Each stage has its colour; where it learns the panel's task its line is strong, elsewhere thin.
    Stages that only stand for learning from scratch are grey. Of several runs it shows each, their
    median and all between the lowest and the highest.

    Args:
        segments: The stages.
        tasks: Names of the tasks, in the order of the panels; those that were never evaluated are
            left out.

    Raises:
        ValueError: If no stage has evaluated any task.
    """
    shown = [task for task in tasks if any(segment.curves.get(task) for segment in segments)]
    require(bool(shown), "segments", "hold an evaluation of a task", list(tasks))
    figure, panels = make_panels(len(shown))
    titles = []
    for panel, task in zip(panels, shown, strict=True):
        for place, segment in enumerate(segments):
            colour = MUTED if segment.is_control else COLOURS[place % len(COLOURS)]
            _draw_segment(panel, segment, task, colour)
        in_unit_range = all(_fits_unit_range(segment, task) for segment in segments)
        style_panel(panel, in_unit_range)
        titles.append(write_header(panel, task.replace("_", " "), []))
    panels[0].set_ylabel("score", color=MUTED, fontproperties=font(9))
    _write_key(figure, panels)
    finish_figure(figure, panels, titles, max(segment.end for segment in segments))
    return figure


def _draw_segment(panel: Axes, segment: Segment, task: str, colour: str) -> None:
    if segment.begin > 0 and not segment.is_control:
        panel.axvline(segment.begin, color=GRID, lw=1.0, ls=(0, (4, 3)))
    curves = [
        Curve(steps + segment.begin, values) for steps, values in segment.curves.get(task, [])
    ]
    width = STRONG if task in segment.learned else THIN
    draw_runs(panel, curves, colour, segment.name.replace("_", " "), width)


def _write_key(figure: Figure, panels: Sequence[Axes]) -> None:
    """Name the stages above the panels, each once."""
    lines: dict[str, Line2D] = {}
    for panel in panels:
        for line in panel.get_lines():
            label = str(line.get_label())
            # Strong lines, where there are any, stand for their stages.
            if not label.startswith("_") and line.get_linewidth() >= _width(lines.get(label)):
                lines[label] = line
    figure.legend(
        lines.values(),
        lines.keys(),
        loc="outside upper left",
        ncols=4,
        frameon=False,
        prop=font(9),
        labelcolor=INK,
        handlelength=1.6,
    )


def _width(line: Line2D | None) -> float:
    return 0.0 if line is None else line.get_linewidth()


def _fits_unit_range(segment: Segment, task: str) -> bool:
    return all(bool(np.all(np.abs(curve.values) <= 1.5)) for curve in segment.curves.get(task, []))
