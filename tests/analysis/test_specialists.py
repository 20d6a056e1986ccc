from pathlib import Path

import pytest
from helpers.asserts import complaint

from lit_mtdqn.analysis.score_table import TaskResult
from lit_mtdqn.analysis.specialists import of_specialists, specialist_scores
from lit_mtdqn.types import TaskInfo

RANGED = TaskInfo(name="ranged", observation_shape=(1,), num_actions=2, score_range=(-10.0, 30.0))
BY_SUCCESS = TaskInfo(name="by_success", observation_shape=(1,), num_actions=2)
INFOS = [RANGED, BY_SUCCESS]
HEADER = "task,episodes,mean,std,min,max,length,success,score\n"


def _report(folder: Path, *rows: str) -> str:
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "test_scores.csv").write_text(HEADER + "".join(f"{r}\n" for r in rows))
    return str(folder)


def test_specialists_are_scored_as_their_tasks_are_now(tmp_path: Path) -> None:
    other = "by_success,5,3.5,0.1,3.0,4.0,12.0,0.8,0.8"
    # Its own run had no score range: its score there was its return.
    both = _report(tmp_path / "both", other, "ranged,5,20.0,1.0,18.0,22.0,9.0,,20.0")
    folders = {"ranged": both, "by_success": both}
    assert specialist_scores(folders, INFOS, "x") == {"ranged": 0.75, "by_success": 0.8}


def test_a_task_that_the_run_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=complaint("x")):
        specialist_scores({"rangd": str(tmp_path)}, INFOS, "x")


@pytest.mark.parametrize("rows", [None, [], ["other,5,20.0,1.0,18.0,22.0,9.0,,20.0"]])
def test_a_folder_without_a_test_of_the_task_is_refused(
    tmp_path: Path, rows: list[str] | None
) -> None:
    if rows is not None:
        _report(tmp_path, *rows)
    with pytest.raises(ValueError, match=complaint("x.ranged")):
        specialist_scores({"ranged": str(tmp_path)}, INFOS, "x")


def _result(task: str, score: float) -> TaskResult:
    return TaskResult(task, 5, 0.0, 0.0, 0.0, 0.0, 1.0, None, score)


def test_a_ratio_needs_a_specialist_that_is_better_than_nothing() -> None:
    results = [_result(task, 0.6) for task in ("good", "nothing", "worse", "without")]
    specialists = {"good": 0.8, "nothing": 0.0, "worse": -0.5}
    expected = {"good": pytest.approx(0.75), "nothing": None, "worse": None, "without": None}
    assert of_specialists(results, specialists) == expected
