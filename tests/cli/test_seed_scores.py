from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from jsonargparse import Namespace

from lit_mtdqn.cli.children import Children, exit_code_of
from lit_mtdqn.cli.seed_scores import SeedScores, environment_of_seeds, wandb_logger_of_seeds
from lit_mtdqn.cli.seeds import run_seeds
from lit_mtdqn.loggers import WandbRun


def write(folder: Path, *rows: tuple[int, float | None]) -> None:
    folder.mkdir(exist_ok=True)
    lines = [f"{step},{'' if score is None else score}" for step, score in rows]
    (folder / "metrics.csv").write_text("\n".join(["step,val/score/mean", *lines, ""]))


def rows_of(logger: Mock) -> list[tuple[float, int]]:
    calls = logger.log_metrics.call_args_list
    return [(call.args[0]["val/score/iqm"], call.kwargs["step"]) for call in calls]


def test_a_row_is_the_interquartile_mean_of_what_all_seeds_have_reached(tmp_path: Path) -> None:
    folders = [tmp_path / str(seed) for seed in range(4)]
    logger = Mock()
    scores = SeedScores(folders, logger)
    for folder, value in zip(folders[:3], (0.0, 0.25, 0.75), strict=True):
        write(folder, (50, None), (100, value))
        scores.log()
    assert rows_of(logger) == []
    write(folders[3], (104, 9.0), (200, 0.5))
    scores.log()
    # Of four a quarter is cut at either end.
    assert rows_of(logger) == [(0.5, 101)]
    for folder, value in zip(folders[:3], (0.0, 0.25, 0.75), strict=True):
        write(folder, (100, value), (200, 0.5))
    scores.log()
    scores.log()
    assert rows_of(logger) == [(0.5, 101), (0.5, 200)]


def test_only_runs_that_log_to_wandb_have_a_run_in_common(tmp_path: Path) -> None:
    entry: Any = Namespace
    arguments = entry(run_dir=None, log_model=True, project="mine", name="x")
    own = entry(class_path="lit_mtdqn.loggers.WandbRun", init_args=arguments)
    other = entry(class_path="lightning.pytorch.loggers.CSVLogger", init_args=entry())
    for given in (None, True, False, other, [other]):
        assert wandb_logger_of_seeds(given, str(tmp_path)) is None
    for given in (own, [other, own]):
        logger = wandb_logger_of_seeds(given, str(tmp_path))
        assert isinstance(logger, WandbRun)
        assert (logger.run_dir, logger.name) == (str(tmp_path), "mine")


def test_single_seeds_are_no_runs_of_the_sweep_but_of_one_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "whole")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_PROJECT", "project")
    logger: Any = SimpleNamespace(experiment=SimpleNamespace(id="whole"))
    environment = environment_of_seeds(logger)
    assert environment["WANDB_RUN_GROUP"] == "whole"
    assert environment["WANDB_PROJECT"] == "project"
    assert not {"WANDB_RUN_ID", "WANDB_SWEEP_ID"} & environment.keys()
    assert os.environ["WANDB_RUN_ID"] == "whole"


def test_scores_are_logged_when_the_last_seed_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Children, arguments: list[str]) -> int:
        folder = next(one for one in arguments if one.startswith("--run_dir="))
        write(Path(folder.partition("=")[2]), (10, float(folder[-1])))
        return 0

    monkeypatch.setattr(Children, "run", run)
    logger = Mock(experiment=Mock(id="whole"))
    assert run_seeds(["fit"], [1, 2], str(tmp_path), 1, logger) == 0
    assert rows_of(logger) == [(1.5, 10)]


@pytest.mark.parametrize(("code", "in_sweep"), [(0, 0), (1, 1), (130, 0), (143, 0), (137, 137)])
def test_a_run_of_a_sweep_that_was_told_to_end_has_not_failed(
    code: int, in_sweep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    assert exit_code_of(code) == code
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert exit_code_of(code) == in_sweep
