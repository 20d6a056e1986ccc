"""Scores that make unlike tasks comparable."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from lit_mtdqn.types import Episodes, TaskInfo

Array = np.ndarray


def normalised_score(episode_return: Array, score_range: tuple[float, float]) -> Array:
    """Return `(return - random) / (reference - random)`: 0 as a random policy, 1 as the reference.

    Args:
        episode_return: Returns of any shape.
        score_range: Returns of the random and of the reference policy.
    """
    random, reference = score_range
    return (episode_return - random) / (reference - random)


def mean_score(
    episode_return: float, success: float | None, score_range: tuple[float, float] | None
) -> float:
    """Return a task's score: normalised return, else success rate, else raw return.

    Args:
        episode_return: Mean return.
        success: Share of successful episodes, or None if the task does not report it.
        score_range: Returns of the random and of the reference policy, or None.
    """
    if score_range is not None:
        return float(normalised_score(np.array(episode_return), score_range))
    return episode_return if success is None else success


def task_score(episodes: Episodes, info: TaskInfo) -> float:
    """Return one task's mean score: normalised return, else success rate, else raw return."""
    success = None if episodes.success is None else float(episodes.success.mean())
    return mean_score(float(episodes.episode_return.mean()), success, info.score_range)


def overall_scores(scores: Mapping[str, float], held_out: Collection[str]) -> dict[str, float]:
    """Return what the scores of several tasks come to.

    Networks are selected by `mean`; tasks that are not learned from must not take part in that.

    Args:
        scores: Scores by task name.
        held_out: Names of tasks that are not learned from.

    Returns:
        `mean` and `worst` over the tasks that are learned from, or over all if there are none;
        `held_out`, the mean over the others, where there are both. Nothing if there are no scores.
    """
    learned = [score for name, score in scores.items() if name not in held_out]
    others = [score for name, score in scores.items() if name in held_out]
    counted = learned or others
    if not counted:
        return {}
    overall = {"mean": float(np.mean(counted)), "worst": float(np.min(counted))}
    return {**overall, "held_out": float(np.mean(others))} if learned and others else overall


def evaluation_metrics(
    evaluations: Sequence[Episodes], tasks: Sequence[TaskInfo], stage: str
) -> dict[str, float]:
    """Return an evaluation's metrics by name.

    Args:
        evaluations: Episodes of each evaluated task.
        tasks: The tasks.
        stage: `val` or `test`.

    Returns:
        Per task `<stage>/episode_return/<task>`, `episode_length`, `success` (where reported),
        `score` and `q_bias`; over tasks what `overall_scores` returns, as `<stage>/score/...`.
    """
    infos = {info.name: info for info in tasks}
    metrics: dict[str, float] = {}
    scores = {}
    for episodes in evaluations:
        name = episodes.task
        scores[name] = task_score(episodes, infos[name])
        metrics[f"{stage}/episode_return/{name}"] = float(episodes.episode_return.mean())
        metrics[f"{stage}/episode_length/{name}"] = float(episodes.episode_length.mean())
        metrics[f"{stage}/q_bias/{name}"] = float(episodes.q_bias.mean())
        metrics[f"{stage}/score/{name}"] = scores[name]
        if episodes.success is not None:
            metrics[f"{stage}/success/{name}"] = float(episodes.success.mean())
    held_out = {info.name for info in tasks if not info.learns}
    overall = overall_scores(scores, held_out)
    return {**metrics, **{f"{stage}/score/{name}": score for name, score in overall.items()}}
