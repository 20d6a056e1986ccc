from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from lit_mtdqn.rollout import WrongNumber, wrong_number
from lit_mtdqn.rollout.wrong_numbers import unsound
from lit_mtdqn.types import StepRow

S, N, O = 2, 3, 4  # noqa: E741  the observation's size, as everywhere


def _rows(count: int = 3, lead: tuple[int, ...] = (S, N), dtype: Any = np.float32) -> list[StepRow]:
    flags, rewards = np.zeros(lead, bool), np.zeros(lead, np.float32)
    actions = np.zeros(lead, np.int64)

    def seen() -> Any:
        return np.zeros((*lead, O), dtype)

    return [
        StepRow(seen(), actions, rewards.copy(), flags, flags, seen(), ~flags) for _ in range(count)
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_wrong_number_in_time_is_found_with_its_place(value: float) -> None:
    rows = _rows()
    rows[2].reward[0, 0] = value
    rows[1].next_observation[1, 2, 3] = value
    found = wrong_number(rows)
    assert found is not None
    assert (found.column, found.step) == ("next_observation", 1)
    assert (found.slot, found.copy) == (1, 2)
    np.testing.assert_equal(found.value, value)


def test_the_observation_that_a_phase_begins_with_is_looked_at() -> None:
    rows = _rows()
    rows[0].observation[0, 1] = math.nan
    found = wrong_number(rows)
    assert found is not None
    assert found == found._replace(column="observation", step=0, slot=0, copy=1)


def test_opposite_infinities_do_not_cancel() -> None:
    rows = _rows()
    rows[0].reward[0] = [math.inf, -math.inf, 0.0]
    assert wrong_number(rows) == WrongNumber("reward", math.inf, 0, 0, 0)


def test_large_numbers_whose_sum_overflows_are_sound() -> None:
    rows = _rows()
    rows[0].next_observation[:] = np.finfo(np.float32).max
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert wrong_number(rows) is None


def test_pixels_and_rows_without_environments_are_sound() -> None:
    assert wrong_number(_rows(dtype=np.uint8)) is None
    assert wrong_number(_rows(lead=(S, 0))) is None
    assert wrong_number([]) is None


def test_rewards_that_nothing_learns_from_are_not_looked_at() -> None:
    (row,) = _rows(1)
    row.reward[1, 0] = math.nan
    assert wrong_number([row], np.array([True, False])) is None
    row.next_observation[1, 2] = math.inf
    found = wrong_number([row], np.array([True, False]))
    assert found == WrongNumber("next_observation", math.inf, 0, 1, 2)


def test_rows_with_a_wrong_number_are_told_from_sound_ones() -> None:
    column = np.zeros((N, O), np.float32)
    assert unsound(column, 1) is None
    column[1, 3], column[2, 0] = math.nan, -math.inf
    found = unsound(column, 1)
    assert found is not None
    assert found.tolist() == [False, True, True]
