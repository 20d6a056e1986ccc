"""How figures of curves look: panels in a grid, their axes, headers and keys."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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

Array = np.ndarray
LineStyle = str | tuple[float, Sequence[float]]
MAX_COLUMNS = 4
PANEL_SIZE = (3.1, 2.5)  # inches
TITLE_SIZE, SMALLEST_TITLE, HEADER_SIZE, HEADER_GAP = 11.0, 7.0, 9.0, 8.0  # points
FONT, ELLIPSIS = "DejaVu Sans", "\N{HORIZONTAL ELLIPSIS}"
INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
# After Okabe and Ito, darkened where they are faint on white. Those of one line style, four apart,
# and the first four are far apart for colour-blind readers, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#b07d00", "#c46fa0", "#1b9fc0", "#7a4a1e")
STYLES: tuple[LineStyle, ...] = ("-", (0, (6, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
HANDLE_LENGTH = 2.6  # of a key, in font sizes: as long as its dashes take
ROUND_STEPS = (1, 2, 2.5, 5, 10)


class Look(NamedTuple):
    """How the lines of one method are told from those of others.

    Attributes:
        colour: Their colour.
        style: Their dashes, as Matplotlib takes them.
    """

    colour: str
    style: LineStyle


LOOKS = tuple(map(Look, COLOURS, itertools.cycle(STYLES)))


class Spread(NamedTuple):
    """Several runs as one, arrays of shape [P]."""

    env_steps: Array
    lowest: Array
    median: Array
    highest: Array


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


def make_panels(count: int, title: str | None = None) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row."""
    rows = math.ceil(count / MAX_COLUMNS)
    columns = math.ceil(count / rows)
    size = (max(PANEL_SIZE[0] * columns, 5.0), PANEL_SIZE[1] * rows + (0.35 if title else 0.0))
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.03, hspace=0.06)
    figure = Figure(figsize=size, layout=layout, facecolor="white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK, fontproperties=font(13, bold=True))
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for lowest_of_its_column in panels[-columns:]:
        lowest_of_its_column.set_xlabel("env steps", color=MUTED, fontproperties=font(9))
    return figure, panels


def spread_of(curves: Sequence[Curve]) -> Spread:
    """Return lowest, median and highest where all runs have values, interpolated to all steps."""
    first = max(curve.env_steps[0] for curve in curves)
    last = min(curve.env_steps[-1] for curve in curves)
    steps = np.unique(np.concatenate([curve.env_steps for curve in curves]))
    steps = steps[(first <= steps) & (steps <= last)]
    values = np.stack([np.interp(steps, curve.env_steps, curve.values) for curve in curves])
    return Spread(steps, values.min(0), np.median(values, 0), values.max(0))


def draw_runs(
    panel: Axes,
    curves: Sequence[Curve],
    colour: str,
    label: str,
    width: float = 2.2,
    *,
    names_range: bool = True,
    style: LineStyle = "-",
) -> float | None:
    """Draw one metric of all runs and return its final median.

    Args:
        panel: Where.
        curves: One of each run; nothing is drawn for none.
        colour: Of the lines and of all between the lowest and the highest.
        label: What the line is called.
        width: Of the line, in points.
        names_range: Whether a key says what the band is.
        style: Dashes of the line of the median.
    """
    if not curves:
        return None
    spread = spread_of(curves)
    if len(curves) > 1:
        panel.fill_between(
            spread.env_steps,
            spread.lowest,
            spread.highest,
            color=colour,
            alpha=0.14,
            lw=0,
            label=f"range of {len(curves)} runs" if names_range else None,
        )
        for curve in curves:
            panel.plot(*curve, color=colour, alpha=0.35, lw=0.7)
    marker = "o" if len(spread.env_steps) == 1 else None
    panel.plot(
        spread.env_steps,
        spread.median,
        color=colour,
        ls=style,
        lw=width,
        marker=marker,
        label=label,
    )
    return float(spread.median[-1]) if len(spread.median) else None


def style_panel(panel: Axes, in_unit_range: bool) -> None:
    """Give a panel its grid and its ticks.

    Args:
        panel: The panel, in which all is drawn.
        in_unit_range: Whether 0 and 1 are shown whatever the curves do.
    """
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


def write_header(panel: Axes, title: str, texts: Sequence[tuple[str, str]]) -> Text:
    """Write the title at the left and texts in their colours, last to first, at the right.

    Returns:
        The title.
    """
    header = panel.set_title(
        title, loc="left", color=INK, fontproperties=font(TITLE_SIZE, bold=True)
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
            fontproperties=font(HEADER_SIZE, bold=True),
        )
        anchor, offset = (0.0, 0.0), (-HEADER_GAP, 0.0)
    return header


def font(size: float, bold: bool = False) -> FontProperties:
    """Return Matplotlib's own font by its file: a search by name may find another."""
    name = f"{FONT.replace(' ', '')}{'-Bold' if bold else ''}.ttf"
    return FontProperties(fname=Path(mpl.get_data_path(), "fonts", "ttf", name), size=size)


def finish_figure(
    figure: Figure, panels: Sequence[Axes], titles: Sequence[Text], longest: float
) -> None:
    """Give all panels one axis of env steps, and all titles room.

    Args:
        figure: The figure.
        panels: Its panels.
        titles: Their titles.
        longest: Env steps of the longest run.
    """
    for panel in panels:
        panel.set_xlim(0, 1.02 * max(longest, 1))
    figure.draw_without_rendering()  # finds out how wide the panels are
    for title in titles:
        _make_room(title)


def _make_room(title: Text) -> None:
    """Shrink a title that reaches into the texts at its right, and cut it if that is not enough."""
    texts = [] if title.axes is None else title.axes.texts
    right = min((text.get_window_extent().x0 for text in texts), default=math.inf)
    room = right - HEADER_GAP - title.get_window_extent().x0
    size = TITLE_SIZE * room / title.get_window_extent().width
    title.set_fontsize(min(max(size, SMALLEST_TITLE), TITLE_SIZE))
    while title.get_window_extent().width > room and len(title.get_text()) > 2:
        title.set_text(title.get_text()[:-2] + ELLIPSIS)


def add_key(panel: Axes) -> None:
    """Say in a panel what its lines are, where they are several."""
    handles, _ = panel.get_legend_handles_labels()
    if len(handles) > 1:
        panel.legend(
            handles=handles[::-1],  # the strongest line first
            loc="best",
            frameon=False,
            prop=font(8),
            labelcolor=MUTED,
            handlelength=HANDLE_LENGTH,
        )
