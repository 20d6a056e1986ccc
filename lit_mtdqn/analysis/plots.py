"""Learning curves as a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.panels import (
    COLOURS,
    INK,
    LOOKS,
    MUTED,
    add_key,
    draw_runs,
    finish_figure,
    font,
    make_panels,
    readable_value,
    spread_of,
    style_panel,
    write_header,
)
from lit_mtdqn.analysis.scores import normalised_score
from lit_mtdqn.types import require

Array = np.ndarray
Metrics = Mapping[str, Curve]

WORST_COLOUR = "#dc2626"
TRAINING_COLOUR = "#9ca3af"
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
    figure, panels = make_panels(count + (count > 1), title)
    pairs = zip(panels, quantities.items(), strict=False)
    titles = [
        _draw_task(panel, runs, task, quantity, COLOURS[index % len(COLOURS)])
        for index, (panel, (task, quantity)) in enumerate(pairs)
    ]
    if count > 1:
        unit_range = all(quantity.in_unit_range for quantity in quantities.values())
        titles.append(_draw_overall(panels[-1], runs, unit_range))
    longest = max(curve.env_steps[-1] for run in runs for curve in run.values())
    add_key(panels[0])
    finish_figure(figure, panels, titles, longest)
    return figure


def method_curves(
    methods: Mapping[str, Sequence[Metrics]],
    score_ranges: Mapping[str, tuple[float, float] | None] | None = None,
    title: str | None = None,
) -> Figure:
    """Return a figure with one panel per task, in which each method has a colour and dashes.

    A panel shows every evaluation of what `learning_curves` would show, by method the median over
    runs and all that lies between the lowest and the highest; of several tasks there is a panel of
    the mean score, too.

    Args:
        methods: By name, what each run of a method logged, as `read_metrics` returns it.
        score_ranges: Score range of every task, in the order of the panels; None takes the tasks
            from the metrics and shows success rates or returns.
        title: Line above the figure.

    Raises:
        ValueError: If there are more methods than colours to tell them apart, or none has logged
            anything of a task.
    """
    must = f"hold 1 to {len(LOOKS)} methods"
    require(1 <= len(methods) <= len(LOOKS), "methods", must, list(methods))
    every = [run for runs in methods.values() for run in runs]
    logged = logged_tasks(every)
    require(bool(logged), "methods", "hold episodes of a task", logged)
    ranges = dict.fromkeys(logged) if score_ranges is None else score_ranges
    shown = {task: _quantity(every, task, rng) for task, rng in ranges.items() if task in logged}
    if len(shown) > 1:
        in_unit_range = all(quantity.in_unit_range for quantity in shown.values())
        shown["all tasks"] = _Quantity(
            "mean score", "val/score/mean", "", np.asarray, in_unit_range
        )
    figure, panels = make_panels(len(shown), title)
    titles = []
    for panel, (name, quantity) in zip(panels, shown.items(), strict=True):
        finals = []
        # The first one is drawn last, and so above the others.
        for (method, runs), (colour, style) in reversed(
            list(zip(methods.items(), LOOKS, strict=False))
        ):
            curves = _curves(runs, quantity.evaluation)
            final = draw_runs(panel, curves, colour, method, names_range=False, style=style)
            finals.append(("" if final is None else readable_value(final), colour))
        panel.set_ylabel(quantity.name, color=MUTED, fontproperties=font(9))
        style_panel(panel, quantity.in_unit_range)
        titles.append(write_header(panel, name.replace("_", " "), finals))
    longest = max(curve.env_steps[-1] for run in every for curve in run.values())
    add_key(panels[0])
    finish_figure(figure, panels, titles, longest)
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


def _draw_task(
    panel: Axes, runs: Sequence[Metrics], task: str, quantity: _Quantity, colour: str
) -> Text:
    """Draw a task's curves and return the panel's title."""
    training = [
        Curve(steps, quantity.to_axis(values)) for steps, values in _curves(runs, quantity.training)
    ]
    if training:
        spread = spread_of(training)
        panel.plot(spread.env_steps, spread.median, color=TRAINING_COLOUR, lw=1.0, label="training")
    success = _curves(runs, f"val/success/{task}")
    if success and quantity.name == "score":
        spread = spread_of(success)
        panel.plot(spread.env_steps, spread.median, ":", color=colour, lw=1.6, label="success")
    final = draw_runs(panel, _curves(runs, quantity.evaluation), colour, "evaluation")
    style_panel(panel, quantity.in_unit_range)
    text = "" if final is None else f"{quantity.name} {readable_value(final)}"
    return write_header(panel, task.replace("_", " "), [(text, colour)])


def _draw_overall(panel: Axes, runs: Sequence[Metrics], in_unit_range: bool) -> Text:
    """Draw mean, worst and held-out score and return the panel's title."""
    texts = []
    for name, colour in (("held_out", MUTED), ("worst", WORST_COLOUR), ("mean", INK)):
        final = draw_runs(panel, _curves(runs, f"val/score/{name}"), colour, name)
        if final is not None:
            texts.append((f"{name.replace('_', ' ')} {readable_value(final)}", colour))
    style_panel(panel, in_unit_range)
    return write_header(panel, "all tasks", texts)
