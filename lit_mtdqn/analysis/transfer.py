"""What learning gained from other tasks, and what it cost them, as numbers.

Curves are scores over env steps, as `read_metrics` returns them under `val/score/<task>`: 0 as a
random policy. Where runs play unlike numbers of tasks, the env steps to compare by are those of the
task itself (`at_own_steps`). Tables of scores are [stages, tasks]: what each stage's last network
reaches in each task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.types import require

Array = np.ndarray
# Of what learning from scratch gained in the end: what counts as having learned the task.
LEARNED = 0.95
# Of a curve's env steps: the last evaluations, whose mean is its asymptote.
LAST = 0.1


class Gain(NamedTuple):
    """What a run gained in a task against one from scratch; columns of a sequence's `transfer.csv`.

    Attributes:
        jumpstart: As `jumpstart`.
        threshold: Score that counts as learned, as `learned_score` of the run from scratch; None if
            that has learned nothing, and then there are no steps either.
        steps: Env steps to that score, or None if it is never reached.
        scratch_steps: Those of the run from scratch.
        area_ratio: As `area_ratio`.
        transfer_ratio: As `transfer_ratio`.
        asymptote: As `asymptote`.
        scratch_asymptote: That of the run from scratch.
    """

    jumpstart: float
    threshold: float | None
    steps: int | None
    scratch_steps: int | None
    area_ratio: float | None
    transfer_ratio: float | None
    asymptote: float
    scratch_asymptote: float


def gain(curve: Curve, scratch: Curve) -> Gain:
    """Return all that a curve says against the one from scratch.

    Raises:
        ValueError: If a curve is empty.
    """
    threshold = learned_score(scratch)
    return Gain(
        jumpstart(curve, scratch),
        threshold,
        time_to_threshold(curve, threshold),
        time_to_threshold(scratch, threshold),
        area_ratio(curve, scratch),
        transfer_ratio(curve, scratch),
        asymptote(curve),
        asymptote(scratch),
    )


def at_own_steps(curve: Curve, played: Curve | None) -> Curve:
    """Return a task's scores over the env steps of this task alone.

    Args:
        curve: Scores over the env steps of all tasks.
        played: Env steps of the task over those of all, as `rollout/env_steps/<task>` has them;
            None if nobody plays it.
    """
    steps, values = _checked(curve)
    own = np.zeros(len(steps)) if played is None else _since_start(played, steps)
    return Curve(np.rint(own).astype(np.int64), values)


def jumpstart(curve: Curve, scratch: Curve) -> float:
    """Return how much better the first evaluation is than that from scratch.

    It is what the source gives before anything is learned if the first evaluation comes first, as
    with the callback `InitialEvaluation`.

    References:
        Taylor and Stone 2009, "Transfer Learning for Reinforcement Learning Domains", section 2.
    """
    return float(_checked(curve).values[0] - _checked(scratch).values[0])


def asymptote(curve: Curve, share: float = LAST) -> float:
    """Return the mean score of the last evaluations.

    Args:
        curve: At least one evaluation; of a curve without env steps, only the last one counts.
        share: Share of the curve's env steps that counts as its end, in (0, 1]; the last evaluation
            always counts. Larger is steadier, and lower where learning goes on.

    Raises:
        ValueError: If the curve is empty or the share out of range.

    References:
        Taylor and Stone 2009, section 2.
    """
    require(0.0 < share <= 1.0, "share", "lie in (0, 1]", share)
    steps, values = _checked(curve)
    if steps[-1] == steps[0]:
        return float(values[-1])
    begin = steps[-1] - share * (steps[-1] - steps[0])
    at_end = values[steps >= begin]
    return float(at_end.mean())


def learned_score(scratch: Curve, share: float = LEARNED) -> float | None:
    """Return the score that counts as learned: most of the way from first score to asymptote.

    Args:
        scratch: Curve of the run from scratch.
        share: Share of that way, in (0, 1].

    Returns:
        None where the asymptote is not above the first score: nothing was learned.

    Raises:
        ValueError: If the curve is empty or the share out of range.
    """
    require(0.0 < share <= 1.0, "share", "lie in (0, 1]", share)
    first = float(_checked(scratch).values[0])
    rise = asymptote(scratch) - first
    return first + share * rise if rise > 0.0 else None


def time_to_threshold(curve: Curve, threshold: float | None) -> int | None:
    """Return the env steps of the first evaluation that reaches a score.

    Returns:
        None if none does, there is no such score, or the curve has no env steps to tell by.

    References:
        Taylor and Stone 2009, section 2.
    """
    if threshold is None or _checked(curve).env_steps[-1] == 0:
        return None
    reached = np.flatnonzero(_checked(curve).values >= threshold)
    return int(curve.env_steps[reached[0]]) if len(reached) else None


def area_ratio(curve: Curve, scratch: Curve) -> float | None:
    """Return the area under a curve over that from scratch: 1 is as fast, 2 twice the score so far.

    Both areas are those of straight lines between evaluations, over the env steps that both runs
    cover.

    Returns:
        None where the area from scratch is not above 0, or no env steps are shared: a ratio would
        mean nothing.

    References:
        Taylor and Stone 2009, section 2: the ratio of total rewards.
    """
    begin = max(_checked(curve).env_steps[0], _checked(scratch).env_steps[0])
    end = min(curve.env_steps[-1], scratch.env_steps[-1])
    if begin >= end:
        return None
    ours, theirs = (_area(one, begin, end) for one in (curve, scratch))
    return ours / theirs if theirs > 0.0 else None


def transfer_ratio(curve: Curve, scratch: Curve) -> float | None:
    """Return what transfer adds to the area from scratch, as a share of it: 0 is no gain.

    References:
        Taylor and Stone 2009, section 2: `(area with transfer - area without) / area without`.
    """
    ratio = area_ratio(curve, scratch)
    return None if ratio is None else ratio - 1.0


def adaptation(
    curve: Curve, episodes: Curve, counts: Sequence[int] = (1, 5, 20)
) -> list[float | None]:
    """Return the score that is reached within some numbers of training episodes.

    Args:
        curve: Scores.
        episodes: Number of training episodes of the task that had ended by some env steps, as
            `rollout/episodes/<task>` has it.
        counts: Numbers of episodes, each at least 1.

    Returns:
        For each count k the score of the last evaluation before more episodes than that had ended;
        None where fewer than k / 2 had, that is evaluations are too rare to tell, or training ended
        before so many episodes.

    References:
        Finn et al. 2017, "Model-Agnostic Meta-Learning", section 5.3: the return after so many
        episodes or updates.
    """
    steps, values = _checked(curve)
    seen = _since_start(episodes, steps)
    found: list[float | None] = []
    for count in counts:
        near = np.flatnonzero((seen <= count) & (seen >= 0.5 * count))
        found.append(float(values[near[-1]]) if len(near) and seen[-1] >= count else None)
    return found


def backward_transfer(scores: Array, learned: Sequence[int]) -> float | None:
    """Return what later stages did to the tasks of earlier ones; below 0 is forgetting.

    Args:
        scores: [stages, tasks].
        learned: The stage that first learned each task, [tasks].

    Returns:
        The mean of `last score - score after the task's own stage`; None if no task was learned
        before the last stage.

    References:
        Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory for Continual Learning", equation 3.
    """
    rows, own = _checked_table(scores, learned)
    earlier = np.flatnonzero(own < len(rows) - 1)
    changes = rows[-1, earlier] - rows[own[earlier], earlier]
    return float(changes.mean()) if len(earlier) else None


def forward_transfer(
    scores: Array, learned: Sequence[int], initial: Array | float = 0.0
) -> float | None:
    """Return what earlier stages gave to tasks before these were learned.

    Args:
        scores: [stages, tasks].
        learned: The stage that first learned each task, [tasks].
        initial: Scores of a network that has learned nothing, [tasks]; 0, that of a random policy.

    Returns:
        The mean of `score before the task's own stage - initial score`; None if all tasks were
        learned in the first stage.

    References:
        Lopez-Paz and Ranzato 2017, equation 4.
    """
    rows, own = _checked_table(scores, learned)
    later = np.flatnonzero(own > 0)
    gains = rows[own[later] - 1, later] - np.broadcast_to(initial, rows.shape[1:])[later]
    return float(gains.mean()) if len(later) else None


def forgetting(scores: Array, learned: Sequence[int]) -> float | None:
    """Return how far the tasks of earlier stages lie below the best that they ever had.

    Args:
        scores: [stages, tasks].
        learned: The stage that first learned each task, [tasks].

    Returns:
        The mean of `best score before the last stage - last score`, below 0 where the last stage
        improves them; None if no task was learned before the last stage.

    References:
        Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning", equation 3.
    """
    rows, own = _checked_table(scores, learned)
    earlier = np.flatnonzero(own < len(rows) - 1)
    lost = rows[:-1, earlier].max(0) - rows[-1, earlier] if len(earlier) else rows[:0, 0]
    return float(lost.mean()) if len(earlier) else None


def transfer_matrix(
    gains: Mapping[tuple[str, str], float | None], sources: Sequence[str], targets: Sequence[str]
) -> Array:
    """Return one measure of transfer for all pairs of tasks, [sources, targets].

    Args:
        gains: The measure, such as `transfer_ratio`, by source and target.
        sources: Names of the rows.
        targets: Names of the columns.

    Returns:
        NaN where a pair was not run or the measure is None.

    References:
        Zamir et al. 2018, "Taskonomy", section 3.
    """
    found = [[gains.get((source, target)) for target in targets] for source in sources]
    return np.array(found, np.float64).reshape(len(sources), len(targets))


def _since_start(count: Curve, steps: Array) -> Array:
    """Return what was counted by some env steps; nothing before the first one."""
    at, counted = _checked(count)
    return np.asarray(np.interp(steps, np.append(0, at), np.append(0.0, counted)))


def _area(curve: Curve, begin: float, end: float) -> float:
    inner = curve.env_steps[(curve.env_steps > begin) & (curve.env_steps < end)]
    steps = np.concatenate([[begin], inner, [end]]).astype(np.float64)
    return float(np.trapezoid(np.interp(steps, *curve), steps))


def _checked(curve: Curve) -> Curve:
    require(len(curve.values) >= 1, "curve", "hold at least one evaluation", len(curve.values))
    return curve


def _checked_table(scores: Array, learned: Sequence[int]) -> tuple[Array, Array]:
    rows, own = np.asarray(scores, np.float64), np.asarray(learned, np.int64)
    must = "be [stages, tasks], one stage and one task at least"
    require(rows.ndim == 2 and rows.size > 0, "scores", must, rows.shape)
    fits = own.shape == rows.shape[1:] and bool(np.all((own >= 0) & (own < len(rows))))
    must = f"name one of {len(rows)} stages for each of {rows.shape[1]} tasks"
    require(fits, "learned", must, list(learned))
    return rows, own
