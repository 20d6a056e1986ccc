"""Which tasks should be trained together, by what a run has logged of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.analysis.statistics import mean_and_std
from lit_mtdqn.types import require

Array = np.ndarray
Grouping = list[list[int]]
# Names of metrics, before `/<task>` or `/<task>/<other>`.
COSINE, LENGTH, AFFINITY = "gradients/cosine", "gradients/share", "affinity"
# There are 4140 groupings of 8 tasks, and 115975 of 10.
MOST_EXHAUSTIVE = 8


class Relation(NamedTuple):
    """Two tasks; the columns of `relatedness.csv`, means over the run.

    Attributes:
        task: One.
        other: The other.
        cosine: Of their gradients, or None if it was not logged.
        affinity_to_other: What a step for `task` does to the loss of `other`; 1 is as good as a
            step for `other` itself, negative is harm. None if it was not logged.
        affinity_from_other: The other way round.
    """

    task: str
    other: str
    cosine: float | None
    affinity_to_other: float | None
    affinity_from_other: float | None


def compared_tasks(metrics: Mapping[str, Curve], tasks: Sequence[str]) -> list[str]:
    """Return those tasks whose affinities a run has logged.

    Args:
        metrics: What the run logged, as `read_metrics` returns it.
        tasks: Names of the tasks.
    """
    return [name for name in tasks if f"{AFFINITY}/{name}/{name}" in metrics]


def mean_cosines(metrics: Mapping[str, Curve], tasks: Sequence[str]) -> Array:
    """Return the mean cosines of the tasks' gradients, [T, T]; not a number where none was logged.

    Args:
        metrics: What the run logged, as `read_metrics` returns it.
        tasks: Names of the tasks.
    """
    table = np.eye(len(tasks))
    for i, j in combinations(range(len(tasks)), 2):
        table[i, j] = table[j, i] = _mean(metrics, f"{COSINE}/{tasks[i]}/{tasks[j]}")
    return table


def mean_affinities(metrics: Mapping[str, Curve], tasks: Sequence[str]) -> Array:
    """Return the mean affinities [T, T] of steps for one task (row) to the others (column).

    Args:
        metrics: What the run logged, as `read_metrics` returns it.
        tasks: Names of the tasks.
    """
    return np.array([[_mean(metrics, f"{AFFINITY}/{i}/{j}") for j in tasks] for i in tasks])


def clear_affinities(metrics: Mapping[str, Curve], tasks: Sequence[str]) -> Array:
    """Return those mean affinities that are more than chance, and 0 for the others, [T, T].

    One minibatch says little of a pair: a mean within two standard errors of 0, or of a single
    look, is taken for none.

    Args:
        metrics: What the run logged, as `read_metrics` returns it.
        tasks: Names of the tasks.
    """
    return np.array(
        [[_clear_mean(metrics.get(f"{AFFINITY}/{i}/{j}")) for j in tasks] for i in tasks]
    )


def mean_lengths(metrics: Mapping[str, Curve], tasks: Sequence[str]) -> Array:
    """Return the mean lengths of the tasks' gradients as shares of their sum, [T]."""
    return np.array([_mean(metrics, f"{LENGTH}/{name}") for name in tasks])


def _mean(metrics: Mapping[str, Curve], name: str) -> float:
    curve = metrics.get(name)
    return float("nan") if curve is None else float(np.mean(curve.values))


def _clear_mean(curve: Curve | None) -> float:
    if curve is None or len(curve.values) < 2:
        return 0.0
    mean, deviation = mean_and_std(curve.values)
    return mean if abs(mean) > 2.0 * deviation / math.sqrt(len(curve.values)) else 0.0


def relations(tasks: Sequence[str], cosines: Array, affinities: Array) -> list[Relation]:
    """Return every pair of tasks.

    Args:
        tasks: T names.
        cosines: [T, T].
        affinities: [T, T], from rows to columns.
    """
    return [
        Relation(
            tasks[i],
            tasks[j],
            *(
                None if np.isnan(number) else float(number)
                for number in (cosines[i, j], affinities[i, j], affinities[j, i])
            ),
        )
        for i, j in combinations(range(len(tasks)), 2)
    ]


def best_grouping(affinities: Array, max_groups: int | None = None) -> Grouping:
    """Return the grouping of tasks in which they help one another most.

    The affinities of all ordered pairs within groups are added up. A task alone has none to add, so
    tasks are parted just where what passes between them is harm on balance; of equally good
    groupings the one of fewest groups is taken. All groupings of up to 8 tasks are compared. More
    tasks start alone, and the two groups that gain most, or lose least, by each other are joined
    while anything is gained or there are too many; that need not find the best.

    Args:
        affinities: What a step for the row's task does to the column's, [T, T]; unknown ones, not a
            number, count 0, and the diagonal is not looked at.
        max_groups: Most groups, at least 1; None allows T.

    Returns:
        Groups of indices, each rising, in the order of their first.

    Raises:
        ValueError: If `max_groups` is below 1.

    References:
        Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning", section
        3.2, https://arxiv.org/abs/2109.04617. There a task's affinities within its group are
        averaged, which parts tasks also from those that help them less than others do.
    """
    count = len(affinities)
    require(max_groups is None or max_groups >= 1, "max_groups", "be at least 1", max_groups)
    limit = count if max_groups is None else max_groups
    gain = np.nan_to_num(affinities + affinities.T)
    if count > MOST_EXHAUSTIVE:
        return _joined(gain, limit)
    allowed = (grouping for grouping in _groupings(count) if len(grouping) <= limit)
    return max(allowed, key=lambda grouping: (_total(grouping, gain), -len(grouping)))


def _groupings(count: int) -> Iterator[Grouping]:
    """Yield every way to put so many tasks into groups."""
    if count == 0:
        yield []
        return
    for grouping in _groupings(count - 1):
        for place, group in enumerate(grouping):
            yield [*grouping[:place], [*group, count - 1], *grouping[place + 1 :]]
        yield [*grouping, [count - 1]]


def _total(grouping: Grouping, gain: Array) -> float:
    return float(sum(gain[pair] for group in grouping for pair in combinations(group, 2)))


def _joined(gain: Array, limit: int) -> Grouping:
    grouping = [[index] for index in range(len(gain))]
    while len(grouping) > 1:
        pairs = list(combinations(range(len(grouping)), 2))
        gains = [gain[np.ix_(grouping[i], grouping[j])].sum() for i, j in pairs]
        best = int(np.argmax(gains))
        if gains[best] < 0.0 and len(grouping) <= limit:
            break
        i, j = pairs[best]
        grouping[i] = sorted(grouping[i] + grouping.pop(j))
    return grouping


def advice(affinities: Array, tasks: Sequence[str]) -> str:
    """Return in one sentence which tasks to train together.

    Args:
        affinities: Those that are clear, [T, T].
        tasks: Names of the tasks.
    """
    if not np.any(affinities[~np.eye(len(tasks), dtype=bool)]):
        return "No task clearly helps or harms another."
    groups = (", ".join(tasks[i] for i in group) for group in best_grouping(affinities))
    return f"Tasks to train together: {', '.join(f'{{{group}}}' for group in groups)}."
