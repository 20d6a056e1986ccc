"""What a network reached in the test, by task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from lit_mtdqn.analysis.scores import overall_scores, task_score
from lit_mtdqn.analysis.statistics import mean_and_std
from lit_mtdqn.types import Episodes, TaskInfo

COLUMN_GAP = "  "
UNKNOWN = "-"


class TaskResult(NamedTuple):
    """Test of one task; the columns of `test_scores.csv`.

    Attributes:
        task: The task's name.
        episodes: Number of episodes.
        mean: Mean return.
        std: Sample standard deviation of returns.
        min: Lowest return.
        max: Highest return.
        length: Mean number of env steps.
        success: Share of successful episodes, or None if the task does not report it.
        score: Mean score.
    """

    task: str
    episodes: int
    mean: float
    std: float
    min: float
    max: float
    length: float
    success: float | None
    score: float


def task_result(episodes: Episodes, info: TaskInfo) -> TaskResult:
    """Return what the test episodes of a task come to."""
    returns = episodes.episode_return
    mean, std = mean_and_std(returns)
    return TaskResult(
        task=episodes.task,
        episodes=len(returns),
        mean=mean,
        std=std,
        min=float(returns.min()),
        max=float(returns.max()),
        length=float(episodes.episode_length.mean()),
        success=None if episodes.success is None else float(episodes.success.mean()),
        score=task_score(episodes, info),
    )


def score_table(
    results: Sequence[TaskResult],
    held_out: Collection[str] = (),
    of_specialists: Mapping[str, float | None] | None = None,
) -> str:
    """Return a table for people, a line per task and, for several tasks, one over all.

    Args:
        results: Tests of the tasks.
        held_out: Names of tasks that are not learned from.
        of_specialists: Scores of tasks over those of their specialists, for a column of their own.
    """
    header = ["task", "episodes", "return", "length", "success", "score"]
    rows = [_texts(result) for result in results]
    if of_specialists:
        header.append("of specialist")
        for row, result in zip(rows, results, strict=True):
            ratio = of_specialists.get(result.task)
            row.append(UNKNOWN if ratio is None else f"{ratio:.3f}")
    lines = aligned([header, *rows])
    rule = "-" * len(lines[0])
    lines.insert(1, rule)
    if len(results) > 1:
        scores = overall_scores({result.task: result.score for result in results}, held_out)
        texts = [f"{name.replace('_', ' ')} {score:.3f}" for name, score in scores.items()]
        overall = COLUMN_GAP.join(texts)
        lines += [rule, "all tasks" + overall.rjust(len(rule) - len("all tasks"))]
    return "\n".join(lines)


def _texts(result: TaskResult) -> list[str]:
    return [
        result.task,
        str(result.episodes),
        f"{result.mean:.2f} ± {result.std:.2f}",
        f"{result.length:.1f}",
        UNKNOWN if result.success is None else f"{result.success:.0%}",
        f"{result.score:.3f}",
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of texts as lines: names at the left, numbers under one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        COLUMN_GAP.join(
            [name.ljust(widths[0])]
            + [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
        )
        for name, *numbers in rows
    ]
