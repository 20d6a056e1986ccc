from pathlib import Path

import pytest
from helpers.asserts import complaint
from helpers.finished_runs import write_run

from lit_mtdqn.analysis.found_runs import common_tasks, read_run, score_matrix


def test_a_run_is_judged_by_its_test_and_before_that_by_its_last_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path / "seed_0", {"a": 0.8, "b": 0.4})
    write_run(tmp_path / "seed_1", {"a": 0.8, "b": 0.4}, tested=False)
    runs = [read_run(tmp_path / f"seed_{seed}", "RUN") for seed in (0, 1)]
    assert [run.is_tested for run in runs] == [True, False]
    assert score_matrix(runs, ["b", "a"]).tolist() == [[0.4, 0.8], [0.2, 0.4]]
    assert [run.env_steps for run in runs] == [2000, 2000]
    assert runs[0].score_ranges == {"a": (0, 10), "b": (0, 10)}
    assert runs[0].command == f"lit-mtdqn fit --config {tmp_path}/seed_0/config.yaml"


def test_tasks_that_are_held_out_do_not_count(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"a": 1.0, "b": 0.1}, tasks={"a": {}, "b": {"learns": False}})
    run = read_run(tmp_path / "run", "RUN")
    assert run.scores == {"a": 1.0}


def test_only_tasks_that_all_runs_have_are_compared(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"b": 1.0, "a": 1.0})
    other = write_run(tmp_path / "other", {"a": 1.0, "c": 1.0})
    methods = {path.name: [read_run(path, "RUN")] for path in (one, other)}
    assert common_tasks(methods, "RUN") == ["a"]
    third = write_run(tmp_path / "third", {"d": 1.0})
    with pytest.raises(ValueError, match=complaint("RUN")):
        common_tasks({**methods, "third": [read_run(third, "RUN")]}, "RUN")
