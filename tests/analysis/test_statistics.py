from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers.asserts import complaint
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.analysis.statistics import (
    interquartile_mean,
    mean_and_std,
    performance_profile,
    stratified_bootstrap_interval,
)

Array = np.ndarray


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean(scores: Array) -> float:
    return float(scores.mean())


def test_the_standard_deviation_is_that_of_a_sample() -> None:
    found = mean_and_std(np.array([1.0, 2.0, 3.0, 6.0]))
    assert found == pytest.approx((3.0, math.sqrt(14 / 3)))


def test_a_single_value_has_no_spread() -> None:
    assert mean_and_std(np.array([4.0])) == (4.0, 0.0)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 9.0], 4.0),
        ([100.0, 1.0, 2.0, -50.0], 1.5),
        ([5.0, 1.0, 2.0, 3.0, 90.0], 10 / 3),
        ([[8.0, 1.0, 6.0, 3.0], [4.0, 5.0, 2.0, 7.0]], 4.5),
    ],
)
def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end(
    scores: list[Any], expected: float
) -> None:
    assert interquartile_mean(np.array(scores)) == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-100, 100), min_size=1, max_size=30))
def test_the_interquartile_mean_agrees_with_taking_extremes_away(scores: list[int]) -> None:
    left = list(scores)
    for _ in range(len(scores) // 4):
        left.remove(min(left))
        left.remove(max(left))
    assert interquartile_mean(np.array(scores)) == pytest.approx(sum(left) / len(left))


def test_one_run_with_nought_and_one_with_one_average_to_a_quarter_half_and_quarter() -> None:
    scores = np.array([[0.0], [1.0]])
    drawn: list[float] = []

    def remember(sample: Array) -> float:
        drawn.append(mean(sample))
        return drawn[-1]

    interval = stratified_bootstrap_interval(scores, generator(), remember, resamples=4_000)
    assert interval == (0.0, 1.0)
    shares = [np.mean(np.array(drawn) == value) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_less_confidence_makes_a_narrower_interval() -> None:
    scores = np.array([[0.0], [1.0]])
    interval = stratified_bootstrap_interval(scores, generator(), mean, confidence=0.4)
    assert interval == (0.5, 0.5)


def test_scores_are_drawn_within_their_task() -> None:
    scores = np.array([[0.0, 5.0, 9.0]] * 3)
    # The middle five of 0 0 0 5 5 5 9 9 9, whichever runs are drawn.
    assert stratified_bootstrap_interval(scores, generator()) == (4.8, 4.8)


def test_every_task_draws_runs_by_itself() -> None:
    scores = np.array([[0.0, 0.0], [1.0, 1.0]])
    found: set[tuple[float, ...]] = set()

    def remember(sample: Array) -> float:
        found.add(tuple(sample.sum(0).tolist()))
        return 0.0

    stratified_bootstrap_interval(scores, generator(), remember, resamples=200)
    assert found == {(a, b) for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0, 2.0)}


def test_equal_seeds_give_equal_intervals() -> None:
    scores = generator(1).random((5, 3))
    intervals = [stratified_bootstrap_interval(scores, generator(seed)) for seed in (3, 3, 4)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_the_interval_lies_around_the_interquartile_mean() -> None:
    scores = generator(2).random((10, 4))
    low, high = stratified_bootstrap_interval(scores, generator())
    assert scores.min() < low < interquartile_mean(scores) < high < scores.max()


@pytest.mark.parametrize(
    ("name", "scores", "options"),
    [
        ("scores", np.zeros(3), {}),
        ("scores", np.zeros((0, 2)), {}),
        ("confidence", np.zeros((2, 2)), {"confidence": 1.0}),
        ("resamples", np.zeros((2, 2)), {"resamples": 0}),
    ],
)
def test_the_interval_refuses_what_it_cannot_use(
    name: str, scores: Array, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        stratified_bootstrap_interval(scores, generator(), **options)


def test_no_numbers_have_no_mean() -> None:
    with pytest.raises(ValueError, match=complaint("values")):
        mean_and_std(np.zeros(0))
    with pytest.raises(ValueError, match=complaint("scores")):
        interquartile_mean(np.zeros(0))


def test_the_interquartile_mean_and_its_interval_are_those_of_rliable() -> None:
    scores = np.array(
        [
            [0.91, 0.40, 1.20],
            [0.85, 0.62, 1.05],
            [0.97, 0.35, 0.30],
            [0.60, 0.55, 1.31],
            [0.92, 0.71, 1.18],
        ]
    )
    # Of `aggregate_iqm` and `get_interval_estimates` of rliable 1.2 with 200,000 resamples.
    assert interquartile_mean(scores) == pytest.approx(0.79777778)
    found = stratified_bootstrap_interval(scores, generator(), resamples=20_000)
    assert found == pytest.approx((0.63, 0.91222222), abs=0.01)


def test_a_profile_is_the_share_of_scores_above_each_threshold() -> None:
    scores = np.array([[0.0, 0.5], [0.5, 1.0]])
    profile = performance_profile(scores, np.array([-0.1, 0.0, 0.25, 0.5, 1.0]))
    assert profile.tolist() == [1.0, 0.75, 0.75, 0.25, 0.0]


def test_the_area_under_a_profile_is_the_mean_score() -> None:
    scores = np.random.default_rng(0).uniform(size=(7, 3))
    thresholds = np.linspace(0.0, 1.0, 100_001)
    area = np.trapezoid(performance_profile(scores, thresholds), thresholds)
    assert area == pytest.approx(scores.mean(), abs=1e-5)
