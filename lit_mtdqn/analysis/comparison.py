"""Several methods in one figure: how good each is on the whole, and how its scores are spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from lit_mtdqn.analysis.panels import (
    FONT,
    GRID,
    HANDLE_LENGTH,
    INK,
    LOOKS,
    MUTED,
    TITLE_SIZE,
    Look,
    font,
    readable_value,
)
from lit_mtdqn.analysis.statistics import (
    interquartile_mean,
    performance_profile,
    resampled_scores,
    stratified_bootstrap_interval,
)
from lit_mtdqn.types import require

Array = np.ndarray
POINTS = 201
RESAMPLES = 500  # of a profile, whose band is drawn and not read off
ROW, SMALLEST = 0.34, 2.6  # inches


class Standing(NamedTuple):
    """How good a method is on the whole.

    Attributes:
        iqm: Interquartile mean of all scores.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        runs: How many runs that is of; one alone says nothing of others, and its ends are its IQM.
    """

    iqm: float
    low: float
    high: float
    runs: int

    @property
    def has_interval(self) -> bool:
        """Whether there are runs to draw from."""
        return self.runs > 1


def standings(
    scores: Mapping[str, Array], generator: np.random.Generator, *, whole_runs: bool = False
) -> dict[str, Standing]:
    """Return how good each method is, the best first.

    Args:
        scores: By method, [runs, tasks].
        generator: Source of the draws of the intervals.
        whole_runs: Whether a run's tasks come from one network.
    """
    found = {
        method: Standing(
            interquartile_mean(own),
            *stratified_bootstrap_interval(own, generator, whole_runs=whole_runs),
            len(own),
        )
        for method, own in scores.items()
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1].iqm))


def compare_methods(
    scores: Mapping[str, Array],
    title: str | None = None,
    *,
    whole_runs: bool = False,
    seed: int = 0,
) -> Figure:
    """Return a figure of methods: interquartile means with intervals, and performance profiles.

    Bands and bars are 95 % bootstrap intervals over runs; a single run has none.

    Args:
        scores: By method, [runs, tasks]; 0 a random policy and 1 the reference.
        title: Line above the figure.
        whole_runs: Whether a run's tasks come from one network.
        seed: Of the draws of the intervals.

    Raises:
        ValueError: If there is no method, or more than colours to tell them apart.

    References:
        Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice".
    """
    must = f"hold 1 to {len(LOOKS)} methods"
    require(1 <= len(scores) <= len(LOOKS), "scores", must, list(scores))
    generator = np.random.default_rng(seed)
    order = standings(scores, generator, whole_runs=whole_runs)
    height = max(ROW * len(scores) + 1.1, SMALLEST) + (0.35 if title else 0.0)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.06)
    figure = Figure(figsize=(9.0, height), layout=layout, facecolor="white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontproperties=font(13, bold=True))
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    looks = dict(zip(scores, LOOKS, strict=False))
    _draw_standings(left, order, looks)
    _draw_profiles(right, {m: scores[m] for m in order}, looks, generator, whole_runs)
    return figure


def _draw_standings(panel: Axes, order: Mapping[str, Standing], looks: Mapping[str, Look]) -> None:
    for row, (method, standing) in enumerate(order.items()):
        ends = (standing.low, standing.high)
        colour = looks[method].colour
        if standing.has_interval:
            panel.plot(ends, (row, row), color=colour, lw=7, alpha=0.3, solid_capstyle="butt")
        panel.plot(standing.iqm, row, "|", color=colour, ms=13, mew=2.5)
    panel.set_yticks(range(len(order)), list(order))
    panel.set_ylim(len(order) - 0.5, -0.5)
    panel.tick_params(axis="y", labelcolor=INK)
    _style(panel, "Interquartile mean, 95 % interval", "score")
    panel.grid(axis="x", color=GRID, lw=0.8)
    numbers = panel.secondary_yaxis("right")
    numbers.set_yticks(range(len(order)), [readable_value(s.iqm) for s in order.values()])
    numbers.tick_params(length=0, labelsize=9, labelcolor=INK, labelfontfamily=FONT)
    numbers.spines["right"].set_visible(False)


def _draw_profiles(
    panel: Axes,
    scores: Mapping[str, Array],
    looks: Mapping[str, Look],
    generator: np.random.Generator,
    whole_runs: bool,
) -> None:
    every = np.concatenate([np.ravel(own) for own in scores.values()])
    thresholds = np.linspace(min(0.0, every.min()), max(1.0, every.max()), POINTS)
    for method, own in scores.items():
        colour, style = looks[method]
        if len(own) > 1:
            drawn = resampled_scores(np.asarray(own), generator, RESAMPLES, whole_runs=whole_runs)
            profiles = [performance_profile(sample, thresholds) for sample in drawn]
            low, high = np.quantile(profiles, [0.025, 0.975], axis=0)
            panel.fill_between(thresholds, low, high, color=colour, alpha=0.12, lw=0, step="post")
        profile = performance_profile(own, thresholds)
        panel.step(thresholds, profile, where="post", color=colour, ls=style, lw=1.8, label=method)
    panel.tick_params(axis="y", labelcolor=MUTED)
    panel.set_ylim(-0.02, 1.02)
    margin = 0.02 * (thresholds[-1] - thresholds[0])
    panel.set_xlim(thresholds[0] - margin, thresholds[-1] + margin)
    panel.set_ylabel("share above score", color=MUTED, fontproperties=font(9))
    _style(panel, "Performance profile", "score")
    panel.grid(color=GRID, lw=0.8)
    panel.legend(
        frameon=False, loc="lower left", prop=font(8), labelcolor=INK, handlelength=HANDLE_LENGTH
    )


def _style(panel: Axes, title: str, axis: str) -> None:
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(GRID)
    panel.set_axisbelow(True)
    panel.tick_params(length=0, labelsize=9, labelfontfamily=FONT)
    panel.tick_params(axis="x", labelcolor=MUTED)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.set_xlabel(axis, color=MUTED, fontproperties=font(9))
    panel.set_title(title, loc="left", color=INK, fontproperties=font(TITLE_SIZE, bold=True))
