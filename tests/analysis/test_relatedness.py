from itertools import chain, product

import numpy as np
import pytest
from helpers.asserts import complaint

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.relatedness import (
    Relation,
    advice,
    best_grouping,
    clear_affinities,
    compared_tasks,
    mean_affinities,
    mean_cosines,
    relations,
)

Array = np.ndarray


def _curve(*values: float) -> Curve:
    return Curve(np.arange(len(values)), np.array(values))


METRICS = {
    "gradients/cosine/a/b": _curve(-0.5, 0.0),
    "affinity/a/a": _curve(1.0, 0.98),
    "affinity/a/b": _curve(0.2, 0.4, 0.3),
    "affinity/b/a": _curve(-1.0, 1.5),
    "affinity/b/b": _curve(0.9),
}


def test_tables_hold_means_over_the_run() -> None:
    assert compared_tasks(METRICS, ["x", "b", "a"]) == ["b", "a"]
    np.testing.assert_allclose(mean_cosines(METRICS, ["a", "b"]), [[1, -0.25], [-0.25, 1]])
    np.testing.assert_allclose(mean_affinities(METRICS, ["a", "b"]), [[0.99, 0.3], [0.25, 0.9]])
    assert np.isnan(mean_affinities(METRICS, ["a", "x"])[0, 1])


def test_what_may_be_chance_is_no_affinity() -> None:
    # Standard errors: of (0.2, 0.4, 0.3) 0.058, of (-1, 1.5) 1.25, of (1, 0.98) 0.01.
    found = clear_affinities(METRICS, ["a", "b", "x"])
    np.testing.assert_allclose(found, [[0.99, 0.3, 0.0], [0.0] * 3, [0.0] * 3])


def test_every_pair_is_a_row_and_unknown_numbers_are_empty() -> None:
    cosines = np.array([[1.0, 0.5, np.nan], [0.5, 1.0, -1.0], [np.nan, -1.0, 1.0]])
    affinities = np.array([[1.0, 0.1, 0.2], [0.3, 1.0, np.nan], [0.4, 0.5, 1.0]])
    assert relations(["a", "b", "c"], cosines, affinities) == [
        Relation("a", "b", 0.5, 0.1, 0.3),
        Relation("a", "c", None, 0.2, 0.4),
        Relation("b", "c", -1.0, None, 0.5),
    ]


def test_friends_of_enemies_are_parted_where_most_is_lost() -> None:
    affinities = np.array([[1.0, 0.5, 0.1], [0.4, 1.0, -0.6], [0.2, -0.3, 1.0]])
    assert best_grouping(affinities) == [[0, 1], [2]]
    assert best_grouping(affinities, max_groups=1) == [[0, 1, 2]]


def test_tasks_that_help_little_stay_with_those_that_help_each_other_more() -> None:
    affinities = np.array([[1.0, 0.9, 0.01], [0.9, 1.0, 0.0], [0.0, 0.02, 1.0]])
    assert best_grouping(affinities) == [[0, 1, 2]]


def test_harm_one_way_is_borne_where_the_other_way_gains_more() -> None:
    assert best_grouping(np.array([[1.0, 0.5], [-0.4, 1.0]])) == [[0, 1]]
    assert best_grouping(np.array([[1.0, 0.4], [-0.5, 1.0]])) == [[0], [1]]


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9])
def test_tasks_that_do_nothing_to_one_another_are_one_group(count: int) -> None:
    unknown = np.full((count, count), np.nan)
    assert best_grouping(unknown) == ([list(range(count))] if count else [])


def _brute_force(affinities: Array, limit: int) -> float:
    """Return the most that any labelling of tasks with groups comes to, pair by pair."""
    count = len(affinities)
    best = -np.inf
    for label in product(range(limit), repeat=count):
        total = sum(
            affinities[i, j]
            for i in range(count)
            for j in range(count)
            if i != j and label[i] == label[j]
        )
        best = max(best, total)
    return best


def _worth(grouping: list[list[int]], affinities: Array) -> float:
    return float(sum(affinities[i, j] for g in grouping for i in g for j in g if i != j))


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_no_grouping_is_better_than_the_best(seed: int, limit: int) -> None:
    affinities = np.random.default_rng(seed).normal(size=(5, 5))
    found = best_grouping(affinities, limit)
    assert sorted(chain(*found)) == list(range(5))
    assert len(found) <= limit
    assert all(group == sorted(group) for group in found)
    assert _worth(found, affinities) == pytest.approx(_brute_force(affinities, limit))


@pytest.mark.parametrize("limit", [None, 3, 2])
def test_many_tasks_are_joined_step_by_step(limit: int | None) -> None:
    # Three circles of friends, which do one another harm; the last two least.
    circle = np.array([0, 1, 2] * 4)
    affinities = np.where(circle[:, None] == circle, 0.5, -0.2)
    affinities[np.ix_(circle == 1, circle == 2)] = -0.1
    first, *others = best_grouping(affinities, limit)
    assert first == [0, 3, 6, 9]
    one, two = [1, 4, 7, 10], [2, 5, 8, 11]
    assert others == ([sorted(one + two)] if limit == 2 else [one, two])


def test_no_groups_are_no_grouping() -> None:
    with pytest.raises(ValueError, match=complaint("max_groups")):
        best_grouping(np.eye(2), 0)


def test_the_best_grouping_is_said_in_names() -> None:
    affinities = np.array([[1.0, -0.2, 0.3], [0.0, 1.0, -0.1], [0.0, 0.0, 1.0]])
    assert advice(affinities, ["a", "b", "c"]) == "Tasks to train together: {a, c}, {b}."


def test_where_nothing_is_clear_nothing_is_advised() -> None:
    assert advice(np.eye(3), ["a", "b", "c"]) == "No task clearly helps or harms another."
