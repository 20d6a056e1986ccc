from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.asserts import complaint
from helpers.finished_runs import write_run

from lit_mtdqn.analysis.found_methods import find_methods

DATES = ("2026-01-01_00-00-00", "2026-01-01_00-00-00_2", "2026-01-02_00-00-00")


def _write_seed(folder: Path, seed: int, **settings: Any) -> None:
    write_run(folder, {"a": 1.0})
    config = yaml.safe_load((folder / "config.yaml").read_text())
    settings = {"seed_everything": seed, **config, **settings}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))


def _write_waiting(folder: Path) -> Path:
    """Write a run that has not been evaluated."""
    write_run(folder, {"a": 1.0}, tested=False)
    (folder / "metrics.csv").write_text("step,env_steps\n100,100\n")
    return folder


def _sizes(sources: Sequence[str]) -> dict[str, int]:
    found = find_methods(sources, "RUN").evaluated
    return {name: len(runs) for name, runs in found.items()}


def test_seeds_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for seed in (10, 9, 2):
        write_run(tmp_path / f"seed_{seed}", {"a": 1.0})
    ((method, runs),) = find_methods([str(tmp_path)], "RUN").evaluated.items()
    assert method == tmp_path.name
    assert [run.folder.name for run in runs] == ["seed_2", "seed_9", "seed_10"]


def test_a_folder_of_methods_a_run_and_a_named_one_stand_side_by_side(tmp_path: Path) -> None:
    for method in ("dqn", "pqn"):
        for seed in (0, 1):
            write_run(tmp_path / "both" / method / f"seed_{seed}", {"a": 1.0})
    alone = write_run(tmp_path / "alone", {"a": 1.0})
    sources = [str(tmp_path / "both"), str(alone), f"mine={alone}"]
    assert _sizes(sources) == {
        "dqn": 2,
        "pqn": 2,
        "alone": 1,
        "mine": 1,
    }


def test_folders_without_runs_and_names_that_say_nothing_are_refused(tmp_path: Path) -> None:
    for method in ("dqn", "pqn"):
        write_run(tmp_path / method, {"a": 1.0})
    (tmp_path / "empty").mkdir()
    run = str(tmp_path / "dqn")
    for sources in ([str(tmp_path / "empty")], [f"mine={tmp_path}"], [run, run]):
        with pytest.raises(ValueError, match=complaint("RUN")):
            find_methods(sources, "RUN")


def test_runs_that_have_not_been_evaluated_are_left_out(tmp_path: Path) -> None:
    waiting = _write_waiting(tmp_path / "study" / "seed_1")
    with pytest.raises(ValueError, match="`RUN` must hold runs that have been evaluated"):
        find_methods([str(waiting)], "RUN")
    write_run(tmp_path / "study" / "seed_0", {"a": 1.0})
    found = find_methods([str(tmp_path)], "RUN")
    assert [run.folder.name for run in found.evaluated["study"]] == ["seed_0"]
    assert [run.folder for run in found.left_out] == [waiting]


def test_runs_that_began_at_unlike_times_are_of_one_method(tmp_path: Path) -> None:
    for place, date in enumerate(DATES):
        _write_seed(tmp_path / "dqn" / "cartpole" / date, place)
    ((method, runs),) = find_methods([str(tmp_path / "dqn")], "RUN").evaluated.items()
    assert method == "cartpole"
    assert [run.folder.name for run in runs] == list(DATES)


def test_what_only_one_run_needs_makes_no_other_method(tmp_path: Path) -> None:
    for seed in (0, 1):
        teacher = f"runs/teachers/seed_{seed}/checkpoints/best.ckpt"
        trainer = {"enable_progress_bar": bool(seed), "logger": None}
        own = {"model": {"teacher": teacher}, "trainer": trainer, "threads": seed}
        _write_seed(tmp_path / "dqn" / f"seed_{seed}", seed, **own)
    assert _sizes([str(tmp_path)]) == {"dqn": 2}


def test_runs_of_unlike_configurations_are_methods_of_their_own(tmp_path: Path) -> None:
    for place, date in enumerate(DATES):
        _write_seed(tmp_path / "cartpole" / date, place, trainer={"max_steps": place // 2})
    assert _sizes([str(tmp_path)]) == {f"cartpole/{DATES[0]}": 2, f"cartpole/{DATES[2]}": 1}


def test_a_run_that_was_repeated_does_not_count_as_another_seed(tmp_path: Path) -> None:
    for date, seed in zip(DATES, (0, 1, 0), strict=True):
        _write_seed(tmp_path / "cartpole" / date, seed)
    assert _sizes([str(tmp_path)]) == {f"cartpole/{DATES[0]}": 2, f"cartpole/{DATES[2]}": 1}


def test_runs_at_unlike_depths_all_count(tmp_path: Path) -> None:
    for folder in ("one", "both", "both/seed_0", "both/seed_1", "deep/er/seed_3"):
        write_run(tmp_path / folder, {"a": 1.0})
    assert _sizes([str(tmp_path)]) == {"one": 1, "both": 1, "both/seed_0": 2, "er": 1}


def test_seeds_that_are_given_one_by_one_are_of_one_method(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "dqn" / f"seed_{seed}", {"a": 1.0}) for seed in (0, 1)]
    assert _sizes([str(run) for run in runs]) == {"dqn": 2}


def test_methods_of_one_name_are_told_by_the_folders_above_them(tmp_path: Path) -> None:
    for folder in ("dqn/cartpole", "pqn/cartpole", "pqn/mountain_car"):
        write_run(tmp_path / folder / "seed_0", {"a": 1.0})
    named = f"mountain_car={tmp_path / 'dqn'}"
    names = ["mountain_car", "dqn/cartpole", "pqn/cartpole", "pqn/mountain_car"]
    assert _sizes([named, str(tmp_path)]) == dict.fromkeys(names, 1)
