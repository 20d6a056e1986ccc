"""Numbers that sum up many scores, and how sure they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lit_mtdqn.types import require

Array = np.ndarray


def mean_and_std(values: Array) -> tuple[float, float]:
    """Return mean and sample standard deviation; the latter is 0 for a single value.

    Args:
        values: At least one number, of any shape.
    """
    values = np.asarray(values, np.float64)
    require(values.size >= 1, "values", "hold at least one number", values)
    spread = values.std(ddof=1) if values.size > 1 else 0.0
    return float(values.mean()), float(spread)


def interquartile_mean(scores: Array) -> float:
    """Return the mean of the middle half: a quarter of the scores is cut off at either end.

    It is less swayed by single tasks and seeds than the mean and uses more of them than the median.

    Args:
        scores: At least one number, of any shape, such as [runs, tasks].

    References:
        Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice".
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=None)
    require(ordered.size >= 1, "scores", "hold at least one number", scores)
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def stratified_bootstrap_interval(
    scores: Array,
    generator: np.random.Generator,
    statistic: Callable[[Array], float] = interquartile_mean,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    whole_runs: bool = False,
) -> tuple[float, float]:
    """Return the ends of a percentile bootstrap interval of a statistic over runs and tasks.

    Runs are drawn with replacement for every task by itself, so that each task keeps its share. The
    tasks of one network belong together: for them whole runs are drawn. With few runs intervals of
    this kind are too narrow: with 5 they hold the true value in some 87 of 100 cases.

    Args:
        scores: [runs, tasks].
        generator: Source of all draws.
        statistic: Maps scores [runs, tasks] to one number.
        confidence: Share of the resampled statistics within the interval, in (0, 1).
        resamples: Number of resampled statistics. Larger makes the ends steadier.
        whole_runs: Whether a run's tasks are drawn together.

    Raises:
        ValueError: If there is no score or a value is out of range.

    References:
        Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice".
    """
    scores = np.asarray(scores, np.float64)
    require(scores.ndim == 2 and scores.size > 0, "scores", "be [runs, tasks]", scores.shape)
    require(0.0 < confidence < 1.0, "confidence", "lie in (0, 1)", confidence)
    require(resamples >= 1, "resamples", "be at least 1", resamples)
    drawn = resampled_scores(scores, generator, resamples, whole_runs=whole_runs)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile([statistic(sample) for sample in drawn], [tail, 1.0 - tail])
    return float(low), float(high)


def resampled_scores(
    scores: Array, generator: np.random.Generator, resamples: int, *, whole_runs: bool
) -> Array:
    """Return scores of runs drawn with replacement, [resamples, runs, tasks].

    Args:
        scores: [runs, tasks].
        generator: Source of all draws.
        resamples: How often all runs are drawn.
        whole_runs: Whether a run's tasks are drawn together, or every task by itself.
    """
    tasks = 1 if whole_runs else scores.shape[1]
    chosen = generator.integers(len(scores), size=(resamples, len(scores), tasks))
    drawn: Array = np.take_along_axis(scores[None], chosen, axis=1)
    return drawn


def performance_profile(scores: Array, thresholds: Array) -> Array:
    """Return the share of scores that lie above each threshold, [P].

    A profile that lies above another one everywhere is better at every level of ambition; where two
    cross, one is better on hard tasks or bad seeds and the other on easy ones or good seeds.

    Args:
        scores: [runs, tasks].
        thresholds: [P].

    References:
        Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice", section 4.2.
    """
    scores = np.asarray(scores, np.float64)
    require(scores.size >= 1, "scores", "hold at least one number", scores)
    return np.asarray((scores.ravel() > np.asarray(thresholds)[:, None]).mean(-1))
