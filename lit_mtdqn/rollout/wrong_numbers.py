"""Rewards and observations of env steps that are infinite or no numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lit_mtdqn.types import Array, StepRow

COLUMNS = ("observation", "reward", "next_observation")


class WrongNumber(NamedTuple):
    """One that was found.

    Attributes:
        column: `reward`, `observation` or `next_observation`.
        value: The number.
        step: Which of the vector steps.
        slot: Which of the tasks.
        copy: Which copy of its environment.
    """

    column: str
    value: float
    step: int
    slot: int
    copy: int


def wrong_number(rows: Sequence[StepRow], rewarded: Array | None = None) -> WrongNumber | None:
    """Return the first number of vector steps, in time, that is infinite or none; None if all are.

    Args:
        rows: Vector steps in their order, arrays [S, N, ...].
        rewarded: Whose rewards are looked at, [S]; None for all tasks.
    """
    for step, row in enumerate(rows):
        # Later ones are the `next_observation` of the row before.
        for name in COLUMNS if step == 0 else COLUMNS[1:]:
            column: Array = getattr(row, name)
            wrong = unsound(column, 2)
            if wrong is None:
                continue
            if name == "reward" and rewarded is not None:
                wrong &= rewarded[:, None]
            places = np.argwhere(wrong)
            if len(places):
                slot, copy = map(int, places[0])
                value = column[slot, copy]
                return WrongNumber(name, float(value[~np.isfinite(value)][0]), step, slot, copy)
    return None


def unsound(column: Array, axes: int) -> Array | None:
    """Return which rows hold a number that is infinite or none, or None if no row does.

    Args:
        column: Arrays.
        axes: Leading axes that number the rows.
    """
    with np.errstate(all="ignore"):
        # Any such number spoils the sum, which costs less than to look at each.
        if column.dtype.kind != "f" or math.isfinite(np.add.reduce(column, None)):
            return None
    wrong: Array = ~np.isfinite(column).reshape(*column.shape[:axes], -1).all(-1)
    return wrong if wrong.any() else None
