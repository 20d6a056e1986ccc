"""Learning curves as a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.scores import normalised_score
from lit_mtdqn.types import require

Array = np.ndarray
Metrics = Mapping[str, Curve]

MAX_COLUMNS = 4
PANEL_SIZE = (3.1, 2.5)  # inches
TITLE_SIZE, SMALLEST_TITLE, HEADER_SIZE, HEADER_GAP = 11.0, 7.0, 9.0, 8.0  # points
FONT, ELLIPSIS = "DejaVu Sans", "\N{HORIZONTAL ELLIPSIS}"
INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
COLOURS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#ca8a04", "#64748b")
WORST_COLOUR = "#dc2626"
TRAINING_COLOUR = "#9ca3af"
ROUND_STEPS = (1, 2, 2.5, 5, 10)
EVALUATED, TRAINED = "val/episode_return/", "rollout/episode_return/"


class _Quantity(NamedTuple):
    """What a task's panel measures.

    Attributes:
        name: What people call it.
        evaluation: Metric of evaluation.
        training: Metric of the training episodes.
        to_axis: Turns the latter into the unit of the former.
        in_unit_range: Whether 0 and 1 are worth showing whatever the curves do.
    """

    name: str
    evaluation: str
    training: str
    to_axis: Callable[[Array], Array]
    in_unit_range: bool


class _Spread(NamedTuple):
    """Several runs as one, arrays of shape [P]."""

    env_steps: Array
    lowest: Array
    median: Array
    highest: Array


def learning_curves(
    runs: Sequence[Metrics],
    score_ranges: Mapping[str, tuple[float, float] | None] | None = None,
    title: str | None = None,
) -> Figure:
    """Return a figure with one panel per task and, for several tasks, one of mean and worst score.

    A panel shows the score where the task has a score range, else the success rate where it is
    reported, else the return: of evaluation as a strong line, of training episodes (a rolling mean)
    as a faint one. Of several runs it shows every evaluation, their median and all that lies
    between the lowest and the highest.

    Args:
        runs: What each run logged, as `read_metrics` returns it; runs differ in their seeds.
        score_ranges: Score range of every task, in the order of the panels; None takes the tasks
            from the metrics and shows success rates or returns.
        title: Line above the figure.

    Raises:
        ValueError: If no run has logged anything of a task.
    """
    logged = logged_tasks(runs)
    ranges = dict.fromkeys(logged) if score_ranges is None else score_ranges
    quantities = {
        task: _quantity(runs, task, score_range)
        for task, score_range in ranges.items()
        if task in logged
    }
    require(bool(quantities), "runs", "hold episodes of a task", logged)
    count = len(quantities)
    figure, panels = _panels(count + (count > 1), title)
    pairs = zip(panels, quantities.items(), strict=False)
    titles = [
        _draw_task(panel, runs, task, quantity, COLOURS[index % len(COLOURS)])
        for index, (panel, (task, quantity)) in enumerate(pairs)
    ]
    if count > 1:
        unit_range = all(quantity.in_unit_range for quantity in quantities.values())
        titles.append(_draw_overall(panels[-1], runs, unit_range))
    longest = max(curve.env_steps[-1] for run in runs for curve in run.values())
    for panel in panels:
        panel.set_xlim(0, 1.02 * max(longest, 1))
    _add_key(panels[0])
    figure.draw_without_rendering()  # finds out how wide the panels are
    for header in titles:
        _make_room(header)
    return figure


def logged_tasks(runs: Sequence[Metrics]) -> list[str]:
    """Return the tasks of which any run has logged episodes."""
    tasks = (
        name.removeprefix(prefix)
        for prefix in (EVALUATED, TRAINED)
        for run in runs
        for name in run
        if name.startswith(prefix)
    )
    return list(dict.fromkeys(tasks))


def readable_steps(steps: float) -> str:
    """Return a count as people write it: 0, 500, 20k, 1.5M."""
    for unit, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(steps) >= unit:
            return f"{steps / unit:g}{suffix}"
    return f"{steps:g}"


def readable_value(value: float) -> str:
    """Return a score or a return with as many digits as are worth reading."""
    return _with_minus_sign(f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}")


def _with_minus_sign(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}")


def _panels(count: int, title: str | None) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row."""
    rows = math.ceil(count / MAX_COLUMNS)
    columns = math.ceil(count / rows)
    size = (max(PANEL_SIZE[0] * columns, 5.0), PANEL_SIZE[1] * rows + (0.35 if title else 0.0))
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.03, hspace=0.06)
    figure = Figure(figsize=size, layout=layout, facecolor="white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontproperties=_font(13, bold=True))
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for lowest_of_its_column in panels[-columns:]:
        lowest_of_its_column.set_xlabel("env steps", color=MUTED, fontproperties=_font(9))
    return figure, panels


def _quantity(
    runs: Sequence[Metrics], task: str, score_range: tuple[float, float] | None
) -> _Quantity:
    if score_range is not None:
        return _Quantity(
            "score",
            f"val/score/{task}",
            TRAINED + task,
            lambda values: normalised_score(values, score_range),
            True,
        )
    if any(f"val/success/{task}" in run for run in runs):
        name = f"success/{task}"
        return _Quantity("success", f"val/{name}", f"rollout/{name}", np.asarray, True)
    return _Quantity("return", EVALUATED + task, TRAINED + task, np.asarray, False)


def _curves(runs: Sequence[Metrics], metric: str) -> list[Curve]:
    return [run[metric] for run in runs if metric in run]


def _across(curves: Sequence[Curve]) -> _Spread:
    """Return lowest, median and highest where all runs have values, interpolated to all steps."""
    first = max(curve.env_steps[0] for curve in curves)
    last = min(curve.env_steps[-1] for curve in curves)
    steps = np.unique(np.concatenate([curve.env_steps for curve in curves]))
    steps = steps[(first <= steps) & (steps <= last)]
    values = np.stack([np.interp(steps, curve.env_steps, curve.values) for curve in curves])
    return _Spread(steps, values.min(0), np.median(values, 0), values.max(0))


def _draw_task(
    panel: Axes, runs: Sequence[Metrics], task: str, quantity: _Quantity, colour: str
) -> Text:
    """Draw a task's curves and return the panel's title."""
    training = [
        Curve(steps, quantity.to_axis(values)) for steps, values in _curves(runs, quantity.training)
    ]
    if training:
        spread = _across(training)
        panel.plot(spread.env_steps, spread.median, color=TRAINING_COLOUR, lw=1.0, label="training")
    success = _curves(runs, f"val/success/{task}")
    if success and quantity.name == "score":
        spread = _across(success)
        panel.plot(spread.env_steps, spread.median, ":", color=colour, lw=1.6, label="success")
    final = _draw_runs(panel, _curves(runs, quantity.evaluation), colour, "evaluation")
    _style(panel, quantity.in_unit_range)
    text = "" if final is None else f"{quantity.name} {readable_value(final)}"
    return _write_header(panel, task.replace("_", " "), [(text, colour)])


def _draw_overall(panel: Axes, runs: Sequence[Metrics], in_unit_range: bool) -> Text:
    """Draw mean, worst and held-out score and return the panel's title."""
    texts = []
    for name, colour in (("held_out", MUTED), ("worst", WORST_COLOUR), ("mean", INK)):
        final = _draw_runs(panel, _curves(runs, f"val/score/{name}"), colour, name)
        if final is not None:
            texts.append((f"{name.replace('_', ' ')} {readable_value(final)}", colour))
    _style(panel, in_unit_range)
    return _write_header(panel, "all tasks", texts)


def _draw_runs(panel: Axes, curves: Sequence[Curve], colour: str, label: str) -> float | None:
    """Draw one metric of all runs and return its final median."""
    if not curves:
        return None
    spread = _across(curves)
    if len(curves) > 1:
        panel.fill_between(
            spread.env_steps,
            spread.lowest,
            spread.highest,
            color=colour,
            alpha=0.14,
            lw=0,
            label=f"range of {len(curves)} runs",
        )
        for curve in curves:
            panel.plot(*curve, color=colour, alpha=0.35, lw=0.7)
    marker = "o" if len(spread.env_steps) == 1 else None
    panel.plot(spread.env_steps, spread.median, color=colour, lw=2.2, marker=marker, label=label)
    return float(spread.median[-1]) if len(spread.median) else None


def _style(panel: Axes, in_unit_range: bool) -> None:
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(GRID)
    panel.grid(axis="y", color=GRID, lw=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=0, labelsize=9, labelcolor=MUTED, labelfontfamily=FONT)
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND_STEPS))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda steps, _: readable_steps(steps)))
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND_STEPS))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _with_minus_sign(f"{value:g}")))
    if in_unit_range:
        low, high = panel.get_ylim()
        panel.set_ylim(min(low, -0.04), max(high, 1.04))


def _write_header(panel: Axes, title: str, texts: Sequence[tuple[str, str]]) -> Text:
    """Write the title at the left and texts in their colours, last to first, at the right.

    Returns:
        The title.
    """
    header = panel.set_title(
        title, loc="left", color=INK, fontproperties=_font(TITLE_SIZE, bold=True)
    )
    place: Axes | Annotation = panel
    anchor, offset = (1.0, 1.0), (0.0, 5.0)
    for text, colour in filter(all, texts):
        place = panel.annotate(
            text,
            anchor,
            xycoords="axes fraction" if place is panel else place,
            xytext=offset,
            textcoords="offset points",
            ha="right",
            va="bottom",
            color=colour,
            fontproperties=_font(HEADER_SIZE, bold=True),
        )
        anchor, offset = (0.0, 0.0), (-HEADER_GAP, 0.0)
    return header


def _font(size: float, bold: bool = False) -> FontProperties:
    """Return Matplotlib's own font by its file: a search by name may find another."""
    name = f"{FONT.replace(' ', '')}{'-Bold' if bold else ''}.ttf"
    return FontProperties(fname=Path(mpl.get_data_path(), "fonts", "ttf", name), size=size)


def _make_room(title: Text) -> None:
    """Shrink a title that reaches into the texts at its right, and cut it if that is not enough."""
    texts = [] if title.axes is None else title.axes.texts
    right = min((text.get_window_extent().x0 for text in texts), default=math.inf)
    room = right - HEADER_GAP - title.get_window_extent().x0
    size = TITLE_SIZE * room / title.get_window_extent().width
    title.set_fontsize(min(max(size, SMALLEST_TITLE), TITLE_SIZE))
    while title.get_window_extent().width > room and len(title.get_text()) > 2:
        title.set_text(title.get_text()[:-2] + ELLIPSIS)


def _add_key(panel: Axes) -> None:
    handles, _ = panel.get_legend_handles_labels()
    if len(handles) > 1:
        panel.legend(
            handles=handles[::-1],  # the strongest line first
            loc="best",
            frameon=False,
            prop=_font(8),
            labelcolor=MUTED,
            handlelength=1.4,
        )
