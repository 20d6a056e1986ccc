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
        place: Which environment: its task and copy, or, of the steps of one task, its copy.
    """

    column: str
    value: float
    step: int
    place: tuple[int, ...]


def wrong_number(rows: Sequence[StepRow], counts: Array | None = None) -> WrongNumber | None:
    """Return the first number of vector steps, in time, that is infinite or none; None if all are.

    Args:
        rows: Vector steps in their order, arrays [S, N, ...], or [N, ...] of one task.
        counts: Whose numbers are looked at, [S, N] or [N]; None for all.
    """
    with np.errstate(all="ignore"):
        for step, row in enumerate(rows):
            # Later ones are the `next_observation` of the row before.
            for name in COLUMNS if step == 0 else COLUMNS[1:]:
                column: Array = getattr(row, name)
                found = None if _is_sound(column) else _first_wrong(column, row.reward.ndim, counts)
                if found is not None:
                    return WrongNumber(name, float(column[found]), step, found[: row.reward.ndim])
    return None


def _is_sound(column: Array) -> bool:
    """Return whether all numbers are certain to be finite: any other one spoils their sum."""
    return column.dtype.kind != "f" or math.isfinite(np.add.reduce(column, None))


def _first_wrong(column: Array, axes: int, counts: Array | None) -> tuple[int, ...] | None:
    wrong = ~np.isfinite(column)
    if counts is not None:
        wrong &= counts.reshape(*counts.shape, *[1] * (column.ndim - axes))
    places = np.argwhere(wrong)
    return tuple(map(int, places[0])) if len(places) else None
