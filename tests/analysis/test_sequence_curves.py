import numpy as np
import pytest
from helpers.asserts import complaint
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.panels import MUTED
from lit_mtdqn.analysis.sequence_curves import STRONG, THIN, Segment, sequence_curves


def _curve(*values: float) -> Curve:
    return Curve(np.arange(len(values)) * 100, np.array(values))


FIRST = Segment("first", 0, 200, {"a": [_curve(0.0, 0.5, 1.0)]}, ["a"], False)
SECOND = Segment(
    "second", 200, 400, {"a": [_curve(1.0, 0.4, 0.3)], "b": [_curve(0.0, 0.5, 1.0)]}, ["b"], False
)
CONTROL = Segment("scratch", 200, 400, {"b": [_curve(0.0, 0.2, 0.6)]}, ["b"], True)


def _line(panel: Axes, name: str) -> Line2D:
    (found,) = [line for line in panel.get_lines() if line.get_label() == name]
    return found


def test_each_task_has_a_panel_in_which_stages_follow_one_another() -> None:
    a, b = sequence_curves([FIRST, SECOND, CONTROL], ["a", "b", "never"]).axes
    assert np.asarray(_line(a, "first").get_xdata()).tolist() == [0, 100, 200]
    assert np.asarray(_line(a, "second").get_xdata()).tolist() == [200, 300, 400]
    assert np.asarray(_line(a, "second").get_ydata()).tolist() == [1.0, 0.4, 0.3]
    assert np.asarray(_line(b, "scratch").get_xdata()).tolist() == [200, 300, 400]


def test_lines_are_strong_where_a_stage_learns_and_controls_are_grey() -> None:
    a, b = sequence_curves([FIRST, SECOND, CONTROL], ["a", "b"]).axes
    assert _line(a, "first").get_linewidth() == _line(b, "second").get_linewidth() == STRONG
    assert _line(a, "second").get_linewidth() == THIN
    assert _line(b, "scratch").get_color() == MUTED
    assert _line(a, "second").get_color() == _line(b, "second").get_color() != MUTED


def test_the_key_names_each_stage_once_and_by_its_strong_line() -> None:
    (key,) = sequence_curves([FIRST, SECOND, CONTROL], ["a", "b"]).legends
    assert [text.get_text() for text in key.get_texts()] == ["first", "second", "scratch"]
    assert {line.get_linewidth() for line in key.get_lines()} == {STRONG}


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("segments")):
        sequence_curves([FIRST], ["b"])
