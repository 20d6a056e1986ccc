from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from helpers.asserts import complaint
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text
from PIL import Image

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.panels import readable_steps, readable_value
from lit_mtdqn.analysis.plots import learning_curves, logged_tasks, method_curves

Metrics = dict[str, Curve]
MINUS = "\N{MINUS SIGN}"
TASKS = ("a", "b", "c", "d", "e", "f")


def curve(points: Mapping[int, float]) -> Curve:
    return Curve(np.array(list(points)), np.array(list(points.values()), np.float64))


def run(tasks: Sequence[str] = ("a",), scale: float = 1.0, last: int = 100) -> Metrics:
    """Return a run whose evaluations are 10, 20 and whose training returns are 4, 8, 12."""
    evaluation = curve({last // 2: 10.0 * scale, last: 20.0 * scale})
    training = curve({last // 4: 4.0 * scale, last // 2: 8.0 * scale, last: 12.0 * scale})
    metrics = {}
    for task in tasks:
        metrics[f"val/episode_return/{task}"] = evaluation
        metrics[f"rollout/episode_return/{task}"] = training
    metrics["val/score/mean"] = metrics["val/score/worst"] = evaluation
    return metrics


def line(panel: Axes, label: str) -> dict[float, float]:
    (found,) = [line for line in panel.get_lines() if line.get_label() == label]
    return dict(np.asarray(found.get_xydata()).tolist())


def labels(panel: Axes) -> set[str]:
    return set(panel.get_legend_handles_labels()[1])


def header(panel: Axes) -> list[str]:
    return [panel.get_title(loc="left"), *(text.get_text() for text in panel.texts)]


def places(figure: Figure) -> tuple[int, int]:
    spec = figure.axes[0].get_subplotspec()
    assert spec is not None
    rows, columns = spec.get_gridspec().get_geometry()
    return rows, columns


def test_returns_are_shown_where_no_score_is_known() -> None:
    (panel,) = learning_curves([run()]).axes
    assert line(panel, "evaluation") == {50: 10.0, 100: 20.0}
    assert line(panel, "training") == {25: 4.0, 50: 8.0, 100: 12.0}
    assert header(panel) == ["a", "return 20"]


def test_training_returns_are_shown_as_scores_where_there_is_a_score_range() -> None:
    metrics = run() | {"val/score/a": curve({50: 0.25, 100: 0.75})}
    (panel,) = learning_curves([metrics], {"a": (4.0, 20.0)}).axes
    assert line(panel, "evaluation") == {50: 0.25, 100: 0.75}
    assert line(panel, "training") == {25: 0.0, 50: 0.25, 100: 0.5}
    assert header(panel) == ["a", "score 0.75"]


def test_success_rates_are_shown_where_they_are_the_score() -> None:
    metrics = run() | {
        "val/success/a": curve({50: 0.5, 100: 1.0}),
        "rollout/success/a": curve({50: 0.25}),
    }
    (panel,) = learning_curves([metrics]).axes
    assert line(panel, "evaluation") == {50: 0.5, 100: 1.0}
    assert line(panel, "training") == {50: 0.25}
    assert header(panel) == ["a", "success 1.00"]


def test_success_rates_accompany_a_score() -> None:
    metrics = run() | {
        "val/score/a": curve({50: 0.25, 100: 0.75}),
        "val/success/a": curve({50: 0.5, 100: 1.0}),
    }
    (panel,) = learning_curves([metrics], {"a": (0.0, 20.0)}).axes
    assert line(panel, "success") == {50: 0.5, 100: 1.0}


def test_a_score_panel_shows_nought_and_one_whatever_the_curves_do() -> None:
    metrics = run() | {"val/score/a": curve({50: 0.4, 100: 0.5})}
    (panel,) = learning_curves([metrics], {"a": (0.0, 100.0)}).axes
    low, high = panel.get_ylim()
    assert low < 0.0 < 1.0 < high


def test_several_tasks_have_a_last_panel_of_mean_and_worst_score() -> None:
    metrics = run(("a", "b")) | {
        "val/score/mean": curve({50: 3.0, 100: 4.0}),
        "val/score/worst": curve({50: 1.0, 100: 2.0}),
    }
    figure = learning_curves([metrics])
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["a", "b", "all tasks"]
    assert line(figure.axes[-1], "mean") == {50: 3.0, 100: 4.0}
    assert line(figure.axes[-1], "worst") == {50: 1.0, 100: 2.0}
    assert header(figure.axes[-1])[1:] == ["worst 2.00", "mean 4.00"]


@pytest.mark.parametrize(
    ("tasks", "shape"), [(1, (1, 1)), (2, (1, 3)), (3, (1, 4)), (4, (2, 3)), (6, (2, 4))]
)
def test_panels_fill_at_most_four_columns(tasks: int, shape: tuple[int, int]) -> None:
    figure = learning_curves([run(TASKS[:tasks])])
    assert len(figure.axes) == tasks + (tasks > 1)
    assert places(figure) == shape


def test_the_lowest_panel_of_every_column_names_the_axis() -> None:
    panels = learning_curves([run(TASKS)]).axes
    assert [bool(panel.get_xlabel()) for panel in panels] == [False] * 3 + [True] * 4


def test_several_runs_show_each_run_their_median_and_their_range() -> None:
    (panel,) = learning_curves([run(scale=scale) for scale in (1.0, 5.0, 2.0)]).axes
    assert line(panel, "evaluation") == {50: 20.0, 100: 40.0}
    assert line(panel, "training") == {25: 8.0, 50: 16.0, 100: 24.0}
    thin = [found for found in panel.get_lines() if str(found.get_label()).startswith("_")]
    assert sorted(np.asarray(found.get_ydata()).tolist() for found in thin) == [
        [10.0, 20.0],
        [20.0, 40.0],
        [50.0, 100.0],
    ]
    (band,) = panel.collections
    assert band.get_label() == "range of 3 runs"
    corners = {tuple(corner) for corner in np.asarray(band.get_paths()[0].vertices).tolist()}
    assert corners == {(50.0, 10.0), (100.0, 20.0), (100.0, 100.0), (50.0, 50.0)}


def test_runs_that_log_at_unlike_steps_meet_where_all_have_values() -> None:
    name = "val/episode_return/a"
    runs = [{name: curve({0: 0.0, 100: 100.0})}, {name: curve({40: 0.0, 80: 0.0, 120: 9.0})}]
    (panel,) = learning_curves(runs).axes
    # Medians of (40, 0), (80, 0) and (100, 4.5).
    assert line(panel, "evaluation") == {40: 20.0, 80: 40.0, 100: 52.25}


def test_runs_that_never_meet_are_drawn_one_by_one() -> None:
    name = "val/episode_return/a"
    runs = [{name: curve({0: 0.0, 10: 1.0})}, {name: curve({20: 0.0, 30: 9.0})}]
    (panel,) = learning_curves(runs).axes
    assert line(panel, "evaluation") == {}
    assert header(panel) == ["a"]
    assert panel.get_xlim()[1] > 30


def test_one_run_has_no_range() -> None:
    (panel,) = learning_curves([run()]).axes
    assert labels(panel) == {"evaluation", "training"}


def test_a_single_evaluation_is_a_visible_dot() -> None:
    (panel,) = learning_curves([{"val/episode_return/a": curve({50: 3.0})}]).axes
    assert [found.get_marker() for found in panel.get_lines()] == ["o"]


def test_a_task_keeps_its_colour_whatever_it_shows() -> None:
    def colours(ranges: dict[str, tuple[float, float] | None]) -> list[object]:
        metrics = run(("a", "b")) | {"val/score/b": curve({50: 0.5})}
        panels = learning_curves([metrics], ranges).axes[:2]
        lines = [line for panel in panels for line in panel.get_lines()]
        return [found.get_color() for found in lines if found.get_label() == "evaluation"]

    plain = colours({"a": None, "b": None})
    assert len(set(plain)) == 2
    assert colours({"a": None, "b": (0.0, 1.0)}) == plain


def test_panels_come_in_the_order_of_the_score_ranges_and_only_of_logged_tasks() -> None:
    ranges = {"held_out": None, "b": None, "a": None}
    titles = [panel.get_title(loc="left") for panel in learning_curves([run("ab")], ranges).axes]
    assert titles == ["b", "a", "all tasks"]


def test_a_run_without_an_evaluation_shows_its_training() -> None:
    metrics = {"rollout/episode_return/a": curve({25: 4.0, 50: 8.0})}
    (panel,) = learning_curves([metrics], {"a": None}).axes
    assert labels(panel) == {"training"}


def test_only_the_first_panel_explains_the_lines() -> None:
    figure = learning_curves([run(("a", "b"))])
    assert [panel.get_legend() is not None for panel in figure.axes] == [True, False, False]


def test_all_panels_share_one_axis_of_env_steps_from_nought() -> None:
    metrics = run(("a",), last=100) | {"val/episode_return/b": curve({1_000: 1.0})}
    limits = {panel.get_xlim() for panel in learning_curves([metrics]).axes}
    assert limits == {(0.0, 1_020.0)}


@pytest.mark.parametrize(
    ("steps", "text"),
    [(0, "0"), (500, "500"), (100_000, "100k"), (2_500, "2.5k"), (1e6, "1M"), (1.5e6, "1.5M")],
)
def test_env_steps_are_written_in_readable_units(steps: float, text: str) -> None:
    assert readable_steps(steps) == text


def test_ticks_are_written_in_readable_units() -> None:
    figure = learning_curves([run(last=1_000_000)])
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert texts[:3] == ["0", "500k", "1M"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.987, "0.99"),
        (-0.5, f"{MINUS}0.50"),
        (487.4, "487"),
        (-12_345.0, f"{MINUS}12,345"),
    ],
)
def test_values_are_written_with_the_digits_worth_reading(value: float, text: str) -> None:
    assert readable_value(value) == text


def test_tasks_are_those_with_episodes() -> None:
    runs = [{"val/episode_return/b": curve({0: 0.0})}, run(("a", "b")), {"train/td_loss/c": 0}]
    assert logged_tasks(runs) == ["b", "a"]  # type: ignore[arg-type]


@pytest.mark.parametrize("runs", [[], [{}], [{"updates": curve({1: 1.0})}]])
def test_runs_without_episodes_are_refused(runs: list[Metrics]) -> None:
    with pytest.raises(ValueError, match=complaint("runs")):
        learning_curves(runs)


def test_a_title_stands_above_the_panels() -> None:
    figure = learning_curves([run()], title="Two roads")
    assert figure.get_suptitle() == "Two roads"


@pytest.mark.parametrize(
    "machine", [{"font.family": "serif"}, {"font.sans-serif": ["STIXGeneral"]}]
)
def test_all_text_is_in_one_typeface_whatever_the_machine_prefers(machine: Any) -> None:
    with mpl.rc_context(machine):
        figure = learning_curves([run(("a", "b"), scale) for scale in (1.0, 2.0)], title="Both")
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        fonts = {get_font(findfont(text.get_fontproperties())).family_name for text in texts}
    assert fonts == {"DejaVu Sans"}
    assert {"a", "return 30", "mean 30", "env steps", "evaluation", "Both", "50"} <= {
        text.get_text() for text in texts
    }


@pytest.mark.parametrize("name", ["a", "breakout", "traffic_light_at_a_wide_crossing"])
@pytest.mark.parametrize("scale", [1.0, -6_000.0])
def test_a_title_leaves_room_for_the_numbers_beside_it(name: str, scale: float) -> None:
    figure = learning_curves([run((name, "b"), scale)])
    figure.draw_without_rendering()
    panel = figure.axes[0]
    (number,) = panel.texts
    shown = panel.get_title(loc="left")
    (title,) = [text for text in panel.findobj(Text) if text.get_text() == shown]
    assert name.replace("_", " ").startswith(shown.rstrip("\N{HORIZONTAL ELLIPSIS}"))
    assert title.get_window_extent().x1 < number.get_window_extent().x0


def test_a_short_title_is_as_large_as_its_neighbours() -> None:
    panels = learning_curves([run(("a", "breakout"))]).axes
    sizes = {
        text.get_fontsize()
        for panel in panels
        for text in panel.findobj(Text)
        if text.get_text() in ("a", "breakout", "all tasks")
    }
    assert sizes == {11.0}


def test_the_figure_becomes_a_picture_of_its_size(tmp_path: Path) -> None:
    figure = learning_curves([run(("a", "b"), scale) for scale in (1.0, 2.0)])
    figure.savefig(tmp_path / "curves.png", dpi=50)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == tuple(int(50 * inches) for inches in figure.get_size_inches())
        colours = image.convert("RGB").getcolors(2**16)
    assert colours is not None
    assert len(colours) > 50


def test_drawing_leaves_no_global_state(tmp_path: Path) -> None:
    before, figures = dict(mpl.rcParams), pyplot.get_fignums()
    learning_curves([run(("a", "b"))]).savefig(tmp_path / "curves.png")
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == figures


def test_methods_share_a_panel_each_in_its_colour() -> None:
    figure = method_curves({"plain": [run(), run(scale=3.0)], "better": [run(scale=5.0)]})
    (panel,) = figure.axes
    assert line(panel, "plain") == {50: 20.0, 100: 40.0}
    assert line(panel, "better") == {50: 50.0, 100: 100.0}
    colours = {str(drawn.get_label()): drawn.get_color() for drawn in panel.get_lines()}
    assert colours["plain"] != colours["better"]
    dashed = {str(drawn.get_label()): drawn.is_dashed() for drawn in panel.get_lines()}
    assert (dashed["plain"], dashed["better"]) == (False, True)
    assert panel.get_ylabel() == "return"
    assert header(panel) == ["a", "100", "40"]


def test_methods_on_several_tasks_have_a_panel_of_the_mean_score() -> None:
    figure = method_curves({"plain": [run(("a", "b"))]}, {"a": (0, 40), "b": (0, 40)})
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["a", "b", "all tasks"]
    assert [panel.get_ylabel() for panel in figure.axes] == ["score", "score", "mean score"]


@pytest.mark.parametrize("count", [0, 9])
def test_methods_that_colours_cannot_tell_apart_are_refused(count: int) -> None:
    message = complaint("methods")
    with pytest.raises(ValueError, match=message):
        method_curves({str(number): [run()] for number in range(count)})
