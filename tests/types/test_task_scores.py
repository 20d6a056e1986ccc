import json

import pytest
from helpers.asserts import complaint

from lit_mtdqn.types import TaskScores

FAST, SLOW = 0.1, 0.02


def test_a_task_of_which_nothing_is_known_is_neutral() -> None:
    scores = TaskScores(["left"])
    assert (scores.score("left"), scores.gap("left"), scores.progress("left")) == (0.0, 1.0, 0.0)
    assert (scores.td_error("left"), scores.surprise("left")) == (0.0, 0.0)


def test_the_gap_is_what_the_latest_score_lacks() -> None:
    scores = TaskScores(["left", "right"])
    for score in (0.1, 0.75):
        scores.add_score("left", score)
    scores.add_score("right", 1.25)
    assert scores.score("left") == 0.75
    assert scores.values("gap", ["right", "left"]) == [-0.25, 0.25]


def test_progress_is_a_fast_average_minus_a_slow_one() -> None:
    scores = TaskScores(["left"])
    fast = slow = 0.0
    for count in range(1, 80):
        score = (count % 7) ** 2 / 36
        scores.add_score("left", score)
        fast += max(FAST, 1 / count) * (score - fast)
        slow += max(SLOW, 1 / count) * (score - slow)
        assert scores.progress("left") == pytest.approx(fast - slow)


def test_the_first_reports_make_no_progress_because_both_averages_cover_them_all() -> None:
    scores = TaskScores(["left"])
    for count in range(10):
        scores.add_score("left", float(count))
        assert scores.progress("left") == 0.0
    scores.add_score("left", 10.0)
    assert scores.progress("left") > 0.0


def test_forgetting_counts_as_much_as_learning() -> None:
    scores = TaskScores(["up", "down", "still"])
    for step in range(20):
        scores.add_score("up", 0.05 * step)
        scores.add_score("down", -0.05 * step)
        scores.add_score("still", 0.5)
    up, down, still = scores.values("progress", ["up", "down", "still"])
    assert scores.progress("down") < 0.0 < scores.progress("up")
    assert up == pytest.approx(down)
    assert still == pytest.approx(0.0)


def test_surprise_is_the_error_in_deviations_from_its_own_moving_mean() -> None:
    scores = TaskScores(["left"])
    scores.add_td_error("left", 1.0)
    assert scores.surprise("left") == 0.0
    scores.add_td_error("left", 3.0)
    assert scores.surprise("left") == pytest.approx((3.0 - 2.0) / 1.0)
    scores.add_td_error("left", 8.0)
    # Mean 4, squares 9 + 1 + 16 over three.
    assert scores.surprise("left") == pytest.approx(4.0 / (26 / 3) ** 0.5)
    assert scores.td_error("left") == 8.0
    assert scores.values("td_error", ["left"]) == [scores.surprise("left")]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_surprise_does_not_depend_on_the_scale_of_rewards(scale: float) -> None:
    scores = TaskScores(["plain", "scaled"])
    for error in (1.0, 2.0, 1.5, 0.5, 4.0):
        scores.add_td_error("plain", error)
        scores.add_td_error("scaled", scale * error)
    assert scores.surprise("scaled") == pytest.approx(scores.surprise("plain"))


def test_errors_that_never_change_surprise_nobody() -> None:
    scores = TaskScores(["left"])
    for _ in range(5):
        scores.add_td_error("left", 0.3)
    assert scores.surprise("left") == 0.0


def test_a_saved_state_is_continued_by_name() -> None:
    first, second = TaskScores(["left", "right"]), TaskScores(["new", "right", "left"])
    for step in range(14):
        first.add_score("left", 0.1 * step)
        first.add_td_error("left", 1.0 + step)
        first.add_td_error("right", 2.0 * step)
    second.add_score("new", 0.5)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for scores in (first, second):
        scores.add_score("left", 0.9)
        scores.add_td_error("right", 3.0)
    for kind in ("gap", "progress", "td_error"):
        tasks = ["left", "right"]
        assert second.values(kind, tasks) == first.values(kind, tasks)
    assert second.gap("new") == 1.0


def test_unknown_tasks_and_kinds_are_refused() -> None:
    scores = TaskScores(["left"])
    with pytest.raises(ValueError, match=complaint("task")):
        scores.add_score("right", 1.0)
    with pytest.raises(ValueError, match=complaint("score")):
        scores.values("luck", ["left"])  # type: ignore[arg-type]
