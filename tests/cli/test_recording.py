import csv
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lit_mtdqn.callbacks import GracefulStop, RunReport
from lit_mtdqn.cli.recording import (
    MetricsLogger,
    RunCheckpoint,
    as_list,
    run_callbacks,
    run_loggers,
)


def test_a_second_logger_continues_the_metrics_file(tmp_path: Path) -> None:
    first = MetricsLogger(str(tmp_path))
    first.log_metrics({"a": 1.0}, step=10)
    first.save()
    second = MetricsLogger(str(tmp_path))
    second.log_metrics({"a": 2.0, "b": 3.0}, step=20)
    second.save()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [(row["step"], row["a"], row["b"]) for row in csv.DictReader(file)]
    assert rows == [("10", "1.0", ""), ("20", "2.0", "3.0")]


@pytest.mark.parametrize("single", [True, False])
def test_the_metrics_file_comes_before_other_loggers(single: bool, tmp_path: Path) -> None:
    other = MetricsLogger(str(tmp_path / "other"))
    loggers = run_loggers(str(tmp_path), other if single else [other])
    assert isinstance(loggers, list)
    assert Path(loggers[0].log_dir or "") == tmp_path
    assert loggers[1:] == [other]


@pytest.mark.parametrize("given", [None, True])
def test_without_other_loggers_there_is_the_metrics_file(given: Any, tmp_path: Path) -> None:
    loggers = run_loggers(str(tmp_path), given)
    assert isinstance(loggers, list)
    assert [Path(logger.log_dir or "") for logger in loggers] == [tmp_path]


def test_no_logger_means_none(tmp_path: Path) -> None:
    assert run_loggers(str(tmp_path), False) is False


def _added(folder: Path, *given: Callback, evaluates: bool = True) -> dict[str, Callback]:
    """Return added callbacks by class, or by file for those that write checkpoints."""
    return {
        str(one.filename) if isinstance(one, ModelCheckpoint) else type(one).__name__: one
        for one in run_callbacks(str(folder), given, evaluates)
    }


def test_a_users_own_checkpoints_take_the_place_of_those_of_their_file_only(
    tmp_path: Path,
) -> None:
    everything = {"GracefulStop", "RunReport", "best", "last"}
    assert _added(tmp_path).keys() == everything
    assert _added(tmp_path, ModelCheckpoint(tmp_path)).keys() == everything
    assert _added(tmp_path, ModelCheckpoint(tmp_path, "best")).keys() == everything - {"best"}


def test_other_callbacks_of_the_configuration_replace_those_of_their_class(tmp_path: Path) -> None:
    assert _added(tmp_path, GracefulStop(), RunReport()).keys() == {"best", "last"}


def test_where_no_task_is_evaluated_there_is_no_best_network(tmp_path: Path) -> None:
    assert "best" not in _added(tmp_path, evaluates=False)
    assert "last" in _added(tmp_path, evaluates=False)


def test_only_the_last_checkpoint_is_written_at_an_interruption(tmp_path: Path) -> None:
    checkpoints = {
        name: callback.save_on_exception
        for name, callback in _added(tmp_path).items()
        if isinstance(callback, ModelCheckpoint)
    }
    assert checkpoints == {"best": False, "last": True}


def test_the_state_of_a_checkpoint_is_not_taken_for_a_users(tmp_path: Path) -> None:
    keys = {one.state_key for one in [*_added(tmp_path).values(), ModelCheckpoint(tmp_path)]}
    assert len({key for key in keys if "Checkpoint" in key}) == 3


@pytest.mark.parametrize(("updates", "saves"), [(0, 0), (1, 1)])
def test_an_interruption_saves_only_what_was_learned(
    updates: int, saves: int, tmp_path: Path
) -> None:
    checkpoint = RunCheckpoint(tmp_path, "last", save_on_exception=True)
    trainer = Mock(global_step=100, current_epoch=1, callback_metrics={}, loggers=[])
    trainer.fast_dev_run = trainer.sanity_checking = False
    checkpoint.on_exception(trainer, Mock(), KeyboardInterrupt())
    checkpoint.on_train_start(trainer, Mock())
    trainer.global_step += updates
    checkpoint.on_exception(trainer, Mock(), KeyboardInterrupt())
    assert trainer.save_checkpoint.call_count == saves


def test_one_several_or_no_things_become_a_list() -> None:
    assert as_list(None) == []
    assert as_list("ab") == ["ab"]
    assert as_list((1, 2)) == [1, 2]
