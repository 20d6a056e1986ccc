import doctest
import math
import sys
from dataclasses import FrozenInstanceError

import pytest
from helpers.asserts import complaint
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.types import (
    Constant,
    Exponential,
    Linear,
    Schedule,
    Sigmoid,
    bounds_of,
    value_at,
)

values = st.floats(-1e3, 1e3)
counts = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("count", "value"), [(0, 1.0), (4, 1.0), (5, 0.75), (6, 0.5), (8, 0.0), (9, 0.0), (10**9, 0.0)]
)
def test_linear_waits_falls_and_stays(count: int, value: float) -> None:
    assert Linear(start=1.0, end=0.0, duration=4, begin=4)(count) == value


@pytest.mark.parametrize(("count", "value"), [(0, 9.0), (3, 5.0), (6, 3.0), (9, 2.0)])
def test_exponential_halves_the_distance_every_half_life(count: int, value: float) -> None:
    assert Exponential(start=9.0, end=1.0, half_life=3)(count) == value


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_a_sigmoid_rises_as_the_paper_says(progress: float) -> None:
    expected = 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0
    assert Sigmoid(end=3.0, duration=1_000)(round(1_000 * progress)) == pytest.approx(3 * expected)


def test_a_sigmoid_stays_where_it_has_arrived_and_is_earlier_where_it_is_steeper() -> None:
    schedule = Sigmoid(end=1.0, duration=100)
    assert schedule(0) == 0.0
    assert schedule(10**9) == schedule(100) == pytest.approx(1.0, abs=1e-4)
    assert Sigmoid(end=1.0, duration=100, steepness=20.0)(10) == pytest.approx(schedule(20))


@settings(max_examples=50, deadline=None)
@given(start=values, end=values, steps=st.integers(1, 1_000), begin=st.integers(0, 1_000))
def test_linear_reaches_both_of_its_values_exactly(
    start: float, end: float, steps: int, begin: int
) -> None:
    schedule = Linear(start, end, steps, begin)
    assert schedule(begin) == start
    assert schedule(begin + steps) == end


@settings(max_examples=50, deadline=None)
@given(start=values, end=values, length=st.integers(1, 1_000), count=counts, later=counts)
@pytest.mark.parametrize("kind", [Linear, Exponential])
def test_a_schedule_never_turns_back(
    kind: type[Linear | Exponential],
    start: float,
    end: float,
    length: int,
    count: int,
    later: int,
) -> None:
    schedule = kind(start, end, length)
    rounding = 1e-9
    way = 1.0 if end >= start else -1.0
    assert way * (schedule(count + later) - schedule(count)) >= -rounding


def test_a_constant_ignores_the_count() -> None:
    assert {Constant(0.1)(count) for count in (0, 7, 10**9)} == {0.1}


@pytest.mark.parametrize("coefficient", [0.25, Constant(0.25), Linear(0.5, 0.0, 10)])
def test_a_coefficient_is_a_number_or_a_schedule(coefficient: float | Schedule) -> None:
    assert value_at(coefficient, 5) == 0.25


@pytest.mark.parametrize(
    ("coefficient", "bounds"),
    [
        (0.5, (0.5, 0.5)),
        (Constant(0.5), (0.5, 0.5)),
        (Linear(3.0, -1.0, 10), (-1.0, 3.0)),
        (Exponential(1.0, 2.0, 10), (1.0, 2.0)),
        (Sigmoid(-2.0, 10), (-2.0, 0.0)),
    ],
)
def test_bounds_enclose_all_values_and_no_more(
    coefficient: float | Schedule, bounds: tuple[float, float]
) -> None:
    assert bounds_of(coefficient) == bounds
    found = [value_at(coefficient, count) for count in range(200)]
    assert (min(found), max(found)) == pytest.approx(bounds, abs=1e-3)


def test_lengths_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=complaint("duration")):
        Linear(1.0, 0.0, duration=0)
    with pytest.raises(ValueError, match=complaint("begin")):
        Linear(1.0, 0.0, duration=1, begin=-1)
    with pytest.raises(ValueError, match=complaint("half_life")):
        Exponential(1.0, 0.0, half_life=0)
    with pytest.raises(ValueError, match=complaint("duration")):
        Sigmoid(1.0, duration=0)
    with pytest.raises(ValueError, match=complaint("steepness")):
        Sigmoid(1.0, duration=1, steepness=0.0)


def test_a_schedule_cannot_be_changed_by_those_who_share_it() -> None:
    with pytest.raises(FrozenInstanceError):
        Constant(0.1).value = 0.2  # type: ignore[misc]


def test_the_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(sys.modules[Schedule.__module__])
    assert results.attempted == 4
    assert results.failed == 0
