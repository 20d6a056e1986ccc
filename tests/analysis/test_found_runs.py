from pathlib import Path

import pytest
from helpers.asserts import complaint
from helpers.finished_runs import write_run

from lit_mtdqn.analysis.found_runs import common_tasks, find_methods, score_matrix


def test_a_run_is_judged_by_its_test_and_before_that_by_its_last_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path / "seed_0", {"a": 0.8, "b": 0.4})
    write_run(tmp_path / "seed_1", {"a": 0.8, "b": 0.4}, tested=False)
    ((method, runs),) = find_methods([str(tmp_path)], "RUN").items()
    assert method == tmp_path.name
    assert [run.is_tested for run in runs] == [True, False]
    assert score_matrix(runs, ["b", "a"]).tolist() == [[0.4, 0.8], [0.2, 0.4]]
    assert [run.env_steps for run in runs] == [2000, 2000]
    assert runs[0].score_ranges == {"a": (0, 10), "b": (0, 10)}
    assert runs[0].command == f"lit-mtdqn fit --config {tmp_path}/seed_0/config.yaml"


def test_seeds_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for seed in (10, 9, 2):
        write_run(tmp_path / f"seed_{seed}", {"a": 1.0})
    ((_, runs),) = find_methods([str(tmp_path)], "RUN").items()
    assert [run.folder.name for run in runs] == ["seed_2", "seed_9", "seed_10"]


def test_a_folder_of_methods_a_run_and_a_named_one_stand_side_by_side(tmp_path: Path) -> None:
    for method in ("dqn", "pqn"):
        for seed in (0, 1):
            write_run(tmp_path / "both" / method / f"seed_{seed}", {"a": 1.0})
    alone = write_run(tmp_path / "alone", {"a": 1.0})
    found = find_methods([str(tmp_path / "both"), str(alone), f"mine={alone}"], "RUN")
    assert {name: len(runs) for name, runs in found.items()} == {
        "dqn": 2,
        "pqn": 2,
        "alone": 1,
        "mine": 1,
    }


def test_tasks_that_are_held_out_do_not_count(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"a": 1.0, "b": 0.1}, tasks={"a": {}, "b": {"learns": False}})
    ((_, (run,)),) = find_methods([str(tmp_path / "run")], "RUN").items()
    assert run.scores == {"a": 1.0}


def test_only_tasks_that_all_runs_have_are_compared(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"b": 1.0, "a": 1.0})
    other = write_run(tmp_path / "other", {"a": 1.0, "c": 1.0})
    methods = find_methods([str(one), str(other)], "RUN")
    assert common_tasks(methods, "RUN") == ["a"]
    third = write_run(tmp_path / "third", {"d": 1.0})
    with pytest.raises(ValueError, match=complaint("RUN")):
        common_tasks(find_methods([str(one), str(third)], "RUN"), "RUN")


def test_folders_without_runs_and_names_that_say_nothing_are_refused(tmp_path: Path) -> None:
    for method in ("dqn", "pqn"):
        write_run(tmp_path / method, {"a": 1.0})
    (tmp_path / "empty").mkdir()
    run = str(tmp_path / "dqn")
    for sources in ([str(tmp_path / "empty")], [f"mine={tmp_path}"], [run, run]):
        with pytest.raises(ValueError, match=complaint("RUN")):
            find_methods(sources, "RUN")


def test_a_run_that_has_not_been_evaluated_says_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text("step,env_steps\n100,100\n")
    with pytest.raises(ValueError, match="`RUN` must hold runs that have been evaluated"):
        find_methods([str(folder)], "RUN")
