"""Measures of transfer against numbers worked out by hand."""

import numpy as np
import pytest
from helpers.asserts import complaint

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.transfer import (
    adaptation,
    area_ratio,
    asymptote,
    at_own_steps,
    backward_transfer,
    forgetting,
    forward_transfer,
    gain,
    jumpstart,
    learned_score,
    time_to_threshold,
    transfer_matrix,
    transfer_ratio,
)


def curve(steps: list[int], values: list[float]) -> Curve:
    return Curve(np.array(steps, np.int64), np.array(values))


SCRATCH = curve([0, 100, 200, 300], [0.0, 0.2, 0.6, 1.0])
TRANSFERRED = curve([0, 100, 200, 300], [0.4, 0.9, 1.0, 1.0])
# Lopez-Paz and Ranzato's R: three stages, which learn the tasks one by one.
SCORES = np.array([[0.9, 0.1, 0.2], [0.5, 0.8, 0.3], [0.6, 0.4, 0.7]])
OWN = [0, 1, 2]


def test_the_jumpstart_is_the_difference_of_the_first_scores() -> None:
    assert jumpstart(TRANSFERRED, SCRATCH) == pytest.approx(0.4)
    assert jumpstart(SCRATCH, TRANSFERRED) == pytest.approx(-0.4)


def test_the_asymptote_is_the_mean_of_the_last_evaluations() -> None:
    assert asymptote(SCRATCH) == 1.0
    # 300 - 0.4 * 300 = 180: the last two.
    assert asymptote(SCRATCH, share=0.4) == pytest.approx(0.8)
    assert asymptote(SCRATCH, share=1.0) == pytest.approx(0.45)


def test_without_env_steps_there_is_an_end_but_neither_time_nor_area() -> None:
    offline = curve([0, 0, 0, 0], [0.0, 0.3, 0.6, 1.0])
    assert asymptote(offline) == 1.0
    found = gain(offline, SCRATCH)
    assert (found.steps, found.area_ratio, found.transfer_ratio) == (None, None, None)
    assert found.scratch_steps == 300


def test_a_task_counts_as_learned_most_of_the_way_up() -> None:
    assert learned_score(SCRATCH) == pytest.approx(0.95)
    # Of returns that are all negative, too, it lies between first and last.
    assert learned_score(curve([0, 10], [-500.0, -100.0])) == pytest.approx(-120.0)


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.5, 0.3, 0.1]])
def test_nothing_counts_as_learned_where_nothing_was_learned(values: list[float]) -> None:
    scratch = curve([0, 100, 200], values)
    assert learned_score(scratch) is None
    found = gain(TRANSFERRED, scratch)
    assert (found.threshold, found.steps, found.scratch_steps) == (None, None, None)


def test_a_task_has_env_steps_of_its_own() -> None:
    both = curve([0, 200, 400], [0.0, 0.5, 1.0])
    # Logged at 100 and at 400 env steps of all tasks; even play in between.
    own = at_own_steps(both, curve([100, 400], [50.0, 200.0]))
    assert own.env_steps.tolist() == [0, 100, 200]
    assert own.values is both.values
    assert at_own_steps(both, None).env_steps.tolist() == [0, 0, 0]


def test_the_first_evaluation_to_reach_the_threshold_counts() -> None:
    falling_back = curve([0, 100, 200, 300], [0.0, 0.6, 0.5, 0.6])
    assert time_to_threshold(falling_back, 0.6) == 100
    assert time_to_threshold(falling_back, 0.0) == 0
    assert time_to_threshold(falling_back, 0.7) is None


def test_areas_are_those_of_straight_lines_between_evaluations() -> None:
    # From scratch 10 + 40 + 80, transferred 65 + 95 + 100.
    assert area_ratio(TRANSFERRED, SCRATCH) == pytest.approx(260 / 130)
    assert transfer_ratio(TRANSFERRED, SCRATCH) == pytest.approx(130 / 130)


def test_areas_cover_what_both_runs_cover() -> None:
    shorter = curve([50, 150], [0.5, 0.5])
    # From scratch 0.1 at 50, 0.2 at 100, 0.4 at 150: 7.5 + 15.
    assert area_ratio(shorter, SCRATCH) == pytest.approx(50 / 22.5)


def test_there_is_no_ratio_to_an_area_that_is_not_above_0_nor_without_common_steps() -> None:
    assert area_ratio(TRANSFERRED, curve([0, 300], [-1.0, 1.0])) is None
    assert transfer_ratio(TRANSFERRED, curve([0, 300], [-1.0, 0.0])) is None
    assert area_ratio(TRANSFERRED, curve([300, 400], [1.0, 1.0])) is None


def test_a_gain_holds_all_measures() -> None:
    found = gain(TRANSFERRED, SCRATCH)
    assert found._asdict() == pytest.approx(
        {
            "jumpstart": 0.4,
            "threshold": 0.95,
            "steps": 200,
            "scratch_steps": 300,
            "area_ratio": 2.0,
            "transfer_ratio": 1.0,
            "asymptote": 1.0,
            "scratch_asymptote": 1.0,
        }
    )


def test_adaptation_is_the_last_score_before_more_episodes_had_ended() -> None:
    episodes = curve([100, 300], [2.0, 10.0])  # 6 by 200
    found = adaptation(TRANSFERRED, episodes, (2, 3, 6, 10, 11))
    assert found == [0.9, 0.9, 1.0, 1.0, None]


def test_an_evaluation_after_too_few_episodes_says_nothing_of_more() -> None:
    episodes = curve([100, 300], [2.0, 10.0])
    # None, 2, 6 and 10 had ended: after 1 and after 5 nobody has looked.
    assert adaptation(TRANSFERRED, episodes, (1, 4, 5)) == [None, 0.9, None]


def test_nothing_is_said_of_episodes_before_the_first_evaluation() -> None:
    late = curve([300, 400], [0.5, 0.6])
    assert adaptation(late, curve([100, 400], [10.0, 40.0]), (5, 40)) == [None, 0.6]


def test_backward_transfer_compares_the_end_with_each_tasks_own_stage() -> None:
    # (0.6 - 0.9 + 0.4 - 0.8) / 2
    assert backward_transfer(SCORES, OWN) == pytest.approx(-0.35)


def test_forward_transfer_compares_the_stage_before_with_the_start() -> None:
    # (0.1 + 0.3) / 2
    assert forward_transfer(SCORES, OWN) == pytest.approx(0.2)
    assert forward_transfer(SCORES, OWN, np.array([0.0, 0.1, 0.2])) == pytest.approx(0.05)


def test_forgetting_compares_the_end_with_the_best_before() -> None:
    # (0.9 - 0.6 + 0.8 - 0.4) / 2
    assert forgetting(SCORES, OWN) == pytest.approx(0.35)
    rising_first = np.array([[0.5], [0.9], [0.7]])
    assert forgetting(rising_first, [0]) == pytest.approx(0.2)
    assert backward_transfer(rising_first, [0]) == pytest.approx(0.2)


def test_a_stage_may_learn_several_tasks() -> None:
    assert backward_transfer(SCORES, [0, 0, 2]) == pytest.approx((-0.3 + 0.3) / 2)
    assert forward_transfer(SCORES, [0, 0, 2]) == pytest.approx(0.3)


def test_one_stage_alone_neither_keeps_nor_gives_anything() -> None:
    assert backward_transfer(SCORES[:1], [0, 0, 0]) is None
    assert forward_transfer(SCORES[:1], [0, 0, 0]) is None
    assert forgetting(SCORES[:1], [0, 0, 0]) is None


def test_the_matrix_has_a_row_per_source_and_a_column_per_target() -> None:
    found = transfer_matrix({("a", "b"): 0.5, ("b", "a"): None, ("b", "c"): -1.0}, "ab", "abc")
    np.testing.assert_array_equal(found, [[np.nan, 0.5, np.nan], [np.nan, np.nan, -1.0]])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("curve")):
        jumpstart(curve([], []), SCRATCH)
    with pytest.raises(ValueError, match=complaint("share")):
        asymptote(SCRATCH, share=0.0)
    with pytest.raises(ValueError, match=complaint("learned")):
        forgetting(SCORES, [0, 1, 3])
    with pytest.raises(ValueError, match=complaint("scores")):
        forgetting(SCORES[0], [0])
