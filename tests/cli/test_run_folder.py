import csv
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_mtdqn.callbacks import GracefulStop
from lit_mtdqn.cli.run_folder import (
    MetricsLogger,
    prepare_run_dir,
    run_callbacks,
    run_loggers,
    stamped_run_dir,
)


def test_the_default_folder_is_named_after_the_configuration() -> None:
    folder = Path(stamped_run_dir(["configs/dqn/cartpole.yaml"]))
    assert folder.parent == Path("runs/dqn/cartpole")
    assert Path(stamped_run_dir(["/elsewhere/mine.yaml"])).parent == Path("runs/mine")
    assert Path(stamped_run_dir([])).parent == Path("runs/run")


def test_a_folder_that_holds_a_run_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(SystemExit, match=r"must not hold a run already.*--ckpt_path last"):
        prepare_run_dir(str(tmp_path), overwrite=False, resuming=False)


def test_a_resumed_folder_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    prepare_run_dir(str(tmp_path), overwrite=False, resuming=True)
    assert (tmp_path / "config.yaml").exists()


def test_overwriting_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("config.yaml", "metrics.csv", "checkpoints/last.ckpt", "notes.txt"):
        (tmp_path / name).touch()
    prepare_run_dir(str(tmp_path), overwrite=True, resuming=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


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


def test_the_metrics_file_comes_before_other_loggers(tmp_path: Path) -> None:
    other = MetricsLogger(str(tmp_path / "other"))
    loggers = run_loggers(str(tmp_path), [other])
    assert isinstance(loggers, list)
    assert Path(loggers[0].log_dir or "") == tmp_path
    assert loggers[1:] == [other]
    assert run_loggers(str(tmp_path), False) is False


def test_callbacks_of_the_configuration_replace_those_of_the_run_folder(tmp_path: Path) -> None:
    mine = ModelCheckpoint(tmp_path)
    added = run_callbacks(str(tmp_path), [mine])
    assert not any(isinstance(callback, ModelCheckpoint) for callback in added)
    assert any(isinstance(callback, GracefulStop) for callback in added)


def test_only_the_last_checkpoint_is_written_at_an_interruption(tmp_path: Path) -> None:
    checkpoints = {
        callback.filename: callback.save_on_exception
        for callback in run_callbacks(str(tmp_path), [])
        if isinstance(callback, ModelCheckpoint)
    }
    assert checkpoints == {"best": False, "last": True}
