"""What a run logged, read back from its `metrics.csv`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

Array = np.ndarray
STEP = "step"


class Curve(NamedTuple):
    """One metric over a run, arrays of shape [P].

    Attributes:
        env_steps: Env steps, summed over tasks, at which it was logged; never falling.
        values: Its values.
    """

    env_steps: Array
    values: Array


def read_metrics(path: str | Path) -> dict[str, Curve]:
    """Return every metric of a `metrics.csv` by name.

    A run that is still going may be writing: a last line without its end is left out. A run that
    was killed and resumed repeats some env steps: what the resumed run logged there replaces what
    the killed one did.

    Args:
        path: File written by Lightning's `CSVLogger`; its column `step` holds env steps.
    """
    rows = _current_rows(_complete_rows(Path(path)))
    points: dict[str, list[tuple[int, float]]] = {}
    for step, row in rows:
        for name, text in row.items():
            if text and name != STEP:
                points.setdefault(name, []).append((step, float(text)))
    return {name: _curve(found) for name, found in points.items()}


def _complete_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [(int(float(row[STEP])), row) for row in csv.DictReader(lines)]


def _current_rows(rows: list[tuple[int, dict[str, str]]]) -> list[tuple[int, dict[str, str]]]:
    """Drop rows that a later row lies before."""
    steps = np.array([step for step, _ in rows])
    lowest_from_here = np.minimum.accumulate(steps[::-1])[::-1]
    return [row for row, keep in zip(rows, steps == lowest_from_here, strict=True) if keep]


def _curve(points: list[tuple[int, float]]) -> Curve:
    steps, values = zip(*points, strict=True)
    return Curve(np.array(steps, np.int64), np.array(values, np.float64))
