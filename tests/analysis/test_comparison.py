import numpy as np
import pytest

from lit_mtdqn.analysis.comparison import compare_methods, standings

WORSE = np.array([[0.1, 0.2], [0.3, 0.2], [0.2, 0.2]])
SCORES = {"plain": WORSE, "better": WORSE + 0.5}


def test_methods_stand_from_best_to_worst_with_their_intervals() -> None:
    found = standings(SCORES, np.random.default_rng(0))
    assert list(found) == ["better", "plain"]
    assert found["plain"].iqm == pytest.approx(0.2)
    assert all(s.low <= s.iqm <= s.high for s in found.values())
    assert found["plain"].high < found["better"].low


def test_a_figure_shows_each_method_in_one_colour_in_both_panels() -> None:
    figure = compare_methods(SCORES, "Two methods")
    left, right = figure.axes[:2]
    assert [label.get_text() for label in left.get_yticklabels()] == ["better", "plain"]
    profiles = {str(line.get_label()): line for line in right.get_lines()}
    bars = dict(zip(["better", "plain"], left.get_lines()[::2], strict=True))
    assert {m: line.get_color() for m, line in profiles.items()} == {
        m: bar.get_color() for m, bar in bars.items()
    }
    assert len({line.get_color() for line in profiles.values()}) == 2
    assert {m: line.is_dashed() for m, line in profiles.items()} == {"plain": False, "better": True}


def test_a_single_run_has_neither_bar_nor_band() -> None:
    figure = compare_methods({"one": WORSE[:1] + 0.5, "several": WORSE})
    left, right = figure.axes[:2]
    widths = [line.get_linewidth() for line in left.get_lines() if np.size(line.get_xdata()) == 2]
    assert len(widths) == 1
    assert len(left.get_yticklabels()) == 2
    assert len(right.collections) == 1


def test_a_profile_falls_from_all_to_none_where_scores_lie() -> None:
    (_, right) = compare_methods({"plain": WORSE}).axes[:2]
    (profile,) = right.get_lines()
    thresholds, shares = (np.asarray(a, float) for a in profile.get_data())
    assert shares[thresholds < 0.1].min() == 1.0
    assert shares[thresholds > 0.31].max() == 0.0
    assert (np.diff(shares) <= 0.0).all()


@pytest.mark.parametrize("count", [0, 9])
def test_methods_that_colours_cannot_tell_apart_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="`scores` must hold 1 to 8 methods"):
        compare_methods({str(i): WORSE for i in range(count)})
