"""How a network on many tasks compares with networks on one."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from lit_mtdqn.analysis.score_table import TaskResult
from lit_mtdqn.analysis.scores import mean_score
from lit_mtdqn.types import TaskInfo, require

TESTS = Path("report", "test_scores.csv")


def specialist_scores(
    folders: Mapping[str, str], infos: Sequence[TaskInfo], name: str
) -> dict[str, float]:
    """Return what specialists reached in their own tests, scored as their tasks are scored now.

    Args:
        folders: Folder of a finished run by the name of the task, under which that run has tested
            it.
        infos: The tasks, whose score ranges count.
        name: What the user calls `folders`.

    Raises:
        ValueError: If there is no such task, or no such test in a folder's report.
    """
    by_name = {info.name: info for info in infos}
    scores = {}
    for task, folder in folders.items():
        require(task in by_name, name, f"name tasks among {list(by_name)}", task)
        score = tested_score(folder, task, by_name[task].score_range)
        must = f"be the folder of a finished run whose report has a test of {task}"
        require(score is not None, f"{name}.{task}", must, folder)
        assert score is not None
        scores[task] = score
    return scores


def is_tested(folder: Path) -> bool:
    """Return whether a run has reported its test, which is the last thing that it does."""
    return (folder / TESTS).is_file()


def tested_score(folder: str, task: str, score_range: tuple[float, float] | None) -> float | None:
    """Return a task's score in the test of a run; None where its report has none.

    Args:
        folder: Of the run.
        task: Its name for the task.
        score_range: Returns that map to scores 0 and 1; None takes success or the raw return.
    """
    row = next((row for row in read_tests(folder) if row["task"] == task), None)
    if row is None:
        return None
    success = float(row["success"]) if row["success"] else None
    return mean_score(float(row["mean"]), success, score_range)


def read_tests(folder: str) -> list[dict[str, str]]:
    """Return the rows of the test in the report of a run's folder; none where there is none."""
    path = Path(folder) / TESTS
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def of_specialists(
    results: Sequence[TaskResult], specialists: Mapping[str, float]
) -> dict[str, float | None]:
    """Return each task's score over its specialist's: 1 is as good.

    Args:
        results: Tests of the tasks.
        specialists: Scores of specialists by task.

    Returns:
        By task; None without a specialist, or where its score is not above 0, below which a ratio
        means nothing.
    """
    ratios: dict[str, float | None] = {}
    for result in results:
        score = specialists.get(result.task, 0.0)
        ratios[result.task] = result.score / score if score > 0.0 else None
    return ratios
