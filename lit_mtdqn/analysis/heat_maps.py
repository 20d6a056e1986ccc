"""What tasks do to one another, as coloured tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_mtdqn.analysis.metrics_file import Curve

Array = np.ndarray
COSINE, SHARE = "gradients/cosine", "gradients/share"
INK, PALE = "#1f2937", "#ffffff"
CELL = 0.75  # inches
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
    names = [name for name in tasks if f"{SHARE}/{name}" in metrics]
    if len(names) < 2:
        return None
    shares = [[_mean(metrics, f"{SHARE}/{name}")] for name in names]
    size = CELL * len(names) + MARGIN
    figure = Figure(figsize=(size + 2 * CELL, size), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[len(names), 1])
    _draw(left, _cosines(metrics, names), "Cosine of gradients", "RdBu", -1.0)
    _draw(right, np.array(shares), "Length", "Greys", 0.0)
    left.set_xticks(range(len(names)), names, rotation=45, ha="right")
    left.set_yticks(range(len(names)), names)
    right.set_xticks([])
    right.set_yticks([])
    return figure


def _cosines(metrics: Mapping[str, Curve], names: Sequence[str]) -> Array:
    table = np.eye(len(names))
    for i, one in enumerate(names):
        for j, other in enumerate(names[i + 1 :], i + 1):
            table[i, j] = table[j, i] = _mean(metrics, f"{COSINE}/{one}/{other}")
    return table


def _mean(metrics: Mapping[str, Curve], name: str) -> float:
    curve = metrics.get(name)
    return float("nan") if curve is None else float(np.mean(curve.values))


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
            f"{value:.2f}".replace("-", "\N{MINUS SIGN}"),
            ha="center",
            va="center",
            color=PALE if dark else INK,
            fontsize=9,
        )
