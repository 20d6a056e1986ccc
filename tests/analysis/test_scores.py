import numpy as np
import pytest

from lit_mtdqn.analysis.scores import (
    evaluation_metrics,
    normalised_score,
    overall_scores,
    task_score,
)
from lit_mtdqn.types import Episodes, TaskInfo


def _info(
    name: str, score_range: tuple[float, float] | None = None, learns: bool = True
) -> TaskInfo:
    return TaskInfo(
        name=name, observation_shape=(4,), num_actions=2, score_range=score_range, learns=learns
    )


def _episodes(task: str, returns: list[float], success: list[bool] | None = None) -> Episodes:
    return Episodes(
        task=task,
        episode_return=np.array(returns),
        episode_length=np.arange(1, len(returns) + 1),
        success=None if success is None else np.array(success),
        q_bias=np.array(returns) / 10.0,
    )


@pytest.mark.parametrize(
    ("score_range", "scores"),
    [((0.0, 10.0), [-0.5, 0.0, 1.0, 2.0]), ((10.0, 0.0), [1.5, 1.0, 0.0, -1.0])],
)
def test_a_random_policy_scores_zero_and_the_reference_one(
    score_range: tuple[float, float], scores: list[float]
) -> None:
    returns = np.array([-5.0, 0.0, 10.0, 20.0])
    np.testing.assert_allclose(normalised_score(returns, score_range), scores)


@pytest.mark.parametrize(
    ("score_range", "success", "score"),
    [
        ((0.0, 8.0), [True, False], 0.5),
        ((0.0, 8.0), None, 0.5),
        (None, [True, True], 1.0),
        (None, [False, False], 0.0),
        (None, None, 4.0),
    ],
)
def test_a_score_is_the_normalised_return_else_the_success_rate_else_the_return(
    score_range: tuple[float, float] | None, success: list[bool] | None, score: float
) -> None:
    assert task_score(_episodes("left", [2.0, 6.0], success), _info("left", score_range)) == score


def test_an_evaluation_reports_every_task_by_name_and_their_mean_and_worst() -> None:
    evaluations = [
        _episodes("right", [10.0, 30.0]),
        _episodes("left", [1.0, 3.0], success=[True, False]),
    ]
    metrics = evaluation_metrics(evaluations, [_info("left"), _info("right", (0.0, 80.0))], "val")
    assert metrics == pytest.approx(
        {
            "val/episode_return/right": 20.0,
            "val/episode_length/right": 1.5,
            "val/q_bias/right": 2.0,
            "val/score/right": 0.25,
            "val/episode_return/left": 2.0,
            "val/episode_length/left": 1.5,
            "val/q_bias/left": 0.2,
            "val/score/left": 0.5,
            "val/success/left": 0.5,
            "val/score/mean": 0.375,
            "val/score/worst": 0.25,
        }
    )


def test_tasks_that_are_not_learned_from_are_reported_apart_from_mean_and_worst() -> None:
    infos = [_info("left"), _info("right"), _info("far", learns=False), _info("hid", learns=False)]
    returns = {"left": 2.0, "far": -9.0, "right": 4.0, "hid": 8.0}
    evaluations = [_episodes(task, [number]) for task, number in returns.items()]
    metrics = evaluation_metrics(evaluations, infos, "val")
    scores = {name: value for name, value in metrics.items() if name.startswith("val/score/")}
    assert scores == {
        **{f"val/score/{task}": number for task, number in returns.items()},
        "val/score/mean": 3.0,
        "val/score/worst": 2.0,
        "val/score/held_out": -0.5,
    }


@pytest.mark.parametrize(
    ("scores", "held_out", "overall"),
    [
        ({"a": 1.0, "b": 3.0}, set(), {"mean": 2.0, "worst": 1.0}),
        ({"a": 1.0, "b": 3.0}, {"a", "b"}, {"mean": 2.0, "worst": 1.0}),
        ({"a": 1.0, "b": 3.0}, {"a"}, {"mean": 3.0, "worst": 3.0, "held_out": 1.0}),
        ({}, {"a"}, {}),
    ],
)
def test_the_mean_is_over_what_is_learned_from_or_over_all_if_nothing_is(
    scores: dict[str, float], held_out: set[str], overall: dict[str, float]
) -> None:
    assert overall_scores(scores, held_out) == overall


def test_metrics_carry_the_name_of_their_stage() -> None:
    metrics = evaluation_metrics([_episodes("left", [1.0])], [_info("left")], "test")
    assert all(name.startswith("test/") for name in metrics)


def test_metrics_are_plain_floats() -> None:
    metrics = evaluation_metrics([_episodes("left", [1.0], [True])], [_info("left")], "val")
    assert {type(value) for value in metrics.values()} == {float}


def test_an_evaluation_of_nothing_reports_nothing() -> None:
    assert evaluation_metrics([], [_info("left")], "val") == {}
