import csv
import errno
import itertools
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lit_mtdqn.analysis.checkpoints import previous_checkpoint, whole_checkpoint
from lit_mtdqn.callbacks import GracefulStop, ReplayCheckpoint, RunReport
from lit_mtdqn.cli.recording import (
    CheckpointFiles,
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


@pytest.mark.parametrize(
    ("updates", "is_between_phases", "saves"), [(0, True, 0), (1, True, 1), (1, False, 0)]
)
def test_an_interruption_saves_only_what_was_learned_by_the_end_of_a_phase(
    updates: int, is_between_phases: bool, saves: int, tmp_path: Path
) -> None:
    checkpoint = RunCheckpoint(tmp_path, "last", save_on_exception=True)
    trainer = Mock(global_step=100, current_epoch=1, callback_metrics={}, loggers=[])
    trainer.fast_dev_run = trainer.sanity_checking = False
    trainer.datamodule.is_between_phases = is_between_phases
    checkpoint.on_exception(trainer, Mock(), KeyboardInterrupt())
    checkpoint.on_train_start(trainer, Mock())
    trainer.global_step += updates
    checkpoint.on_exception(trainer, Mock(), KeyboardInterrupt())
    assert trainer.save_checkpoint.call_count == saves


@pytest.mark.parametrize("is_first", [True, False])
def test_a_checkpoint_that_cannot_be_written_takes_the_place_of_no_error(
    is_first: bool, tmp_path: Path
) -> None:
    last = tmp_path / "last.ckpt"
    if not is_first:
        last.touch()
    checkpoint = RunCheckpoint(tmp_path, "last", save_on_exception=True)
    trainer = Mock(global_step=100, current_epoch=1, callback_metrics={}, loggers=[])
    trainer.fast_dev_run = trainer.sanity_checking = False
    checkpoint.on_train_start(trainer, Mock())
    trainer.global_step += 1
    trainer.save_checkpoint.side_effect = OSError(errno.EROFS, "Read-only file system")
    left = "" if is_first else "; the checkpoint before it is still there"
    said = f"What was learned last is not saved in {last} (Read-only file system){left}."
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$"):
        checkpoint.on_exception(trainer, Mock(), KeyboardInterrupt())


def test_a_resumed_run_knows_the_score_of_its_last_evaluation(tmp_path: Path) -> None:
    first, second = (RunCheckpoint(tmp_path, "best", monitor="val/score/mean") for _ in range(2))
    first.current_score = torch.tensor(0.5)
    second.load_state_dict(first.state_dict())
    assert second.current_score == 0.5


def test_one_several_or_no_things_become_a_list() -> None:
    assert as_list(None) == []
    assert as_list("ab") == ["ab"]
    assert as_list((1, 2)) == [1, 2]


def test_a_metrics_file_that_was_cut_off_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    first = MetricsLogger(str(tmp_path))
    for step in (10, 20):
        first.log_metrics({"a": 1.0}, step=step)
    first.save()
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "1.0,3")
    second = MetricsLogger(str(tmp_path))
    second.log_metrics({"a": 2.0}, step=30)
    second.save()
    with path.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["10", "20", "30"]


def test_a_row_that_is_sent_twice_is_written_once(tmp_path: Path) -> None:
    logger = MetricsLogger(str(tmp_path))
    for step in (10, 20, 20):
        logger.log_metrics({"a": 1.0}, step=step)
    logger.save()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["10", "20"]


@pytest.mark.parametrize(("anew", "kept"), [(False, ["10", "20", "20"]), (True, ["10", "20"])])
def test_rows_that_will_be_written_again_are_forgotten(
    anew: bool, kept: list[str], tmp_path: Path
) -> None:
    logger = MetricsLogger(str(tmp_path))
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": 1.0}, step=step)
        if step == 20:
            logger.log_metrics({"val/score/mean": 1.0}, step=step)
    logger.save()
    logger.forget_after(20, evaluates_anew=anew)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == kept


def test_a_metrics_file_without_a_whole_header_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a,st")
    logger = MetricsLogger(str(tmp_path))
    logger.log_metrics({"b": 2.0}, step=30)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().split() == ["b,step", "2.0,30"]


def test_a_new_column_leaves_the_old_file_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = MetricsLogger(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=10)
    logger.save()
    before = (tmp_path / "metrics.csv").read_text()

    def killed(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", killed)
    logger.log_metrics({"b": 1.0}, step=20)
    with pytest.raises(OSError, match="No space"):
        logger.save()
    assert (tmp_path / "metrics.csv").read_text() == before


def test_the_checkpoint_before_each_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    files = CheckpointFiles()
    for number in (1, 2, 3):
        files.save_checkpoint({"number": number}, path)
    found = [torch.load(file)["number"] for file in (path, previous_checkpoint(path))]
    assert found == [3, 2]
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["last.ckpt"] * 2


def test_a_damaged_checkpoint_does_not_replace_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    files = CheckpointFiles()
    for number in (1, 2):
        files.save_checkpoint({"number": number, "weight": torch.full((100,), number)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    # Killed in the next save, before the fresh file takes its name.
    rename = Path.replace

    def killed(file: Path, target: Path) -> Path:
        if target == path:
            raise KeyboardInterrupt
        return rename(file, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        files.save_checkpoint({"number": 3}, path)
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.load(whole_checkpoint(path, "ckpt_path"))["number"] == 1


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    files = CheckpointFiles()
    files.save_checkpoint({"number": 1}, path)

    def half(file: Path, content: Any) -> None:
        with file.open("wb") as begun:
            begun.write(content[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        files.save_checkpoint({"number": 2}, path)
    assert torch.load(path)["number"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def _write_until_killed(path: Path) -> None:
    """Write the checkpoints 1, 2, ... and say after each that it is there."""
    files = CheckpointFiles()
    for number in itertools.count(1):
        files.save_checkpoint({"weights": torch.full((5_000,), float(number))}, path)
        (path.parent / "said").write_text(str(number))


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_a_whole_checkpoint(kills: int, tmp_path: Path) -> None:
    draw = random.Random(0)
    damaged, lost = [], []
    for kill in range(kills):
        path = tmp_path / str(kill) / "last.ckpt"
        path.parent.mkdir()
        CheckpointFiles().save_checkpoint({"weights": torch.zeros(5_000)}, path)
        child = os.fork()
        if child == 0:
            try:
                _write_until_killed(path)
            finally:
                os._exit(1)
        time.sleep(draw.uniform(0.0, 0.006))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        weights = torch.load(whole_checkpoint(path, "source"))["weights"]
        said = path.parent / "said"
        promised = int((said.read_text() if said.is_file() else "") or 0)
        damaged += [kill] if weights.unique().numel() != 1 else []
        lost += [kill] if weights[0] < promised else []
        shutil.rmtree(path.parent)
    assert (damaged, lost) == ([], [])


def test_replays_are_saved_with_checkpoints_unless_nobody_wants_them(tmp_path: Path) -> None:
    def names(*given: Callback, saves_replays: bool) -> list[str]:
        added = run_callbacks(str(tmp_path), given, True, saves_replays)
        return [type(one).__name__ for one in added]

    assert "ReplayCheckpoint" in names(saves_replays=True)
    assert "ReplayCheckpoint" not in names(saves_replays=False)
    assert "ReplayCheckpoint" not in names(ReplayCheckpoint(), saves_replays=True)


def test_rows_of_what_is_played_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("loss,step\n1.5,100\n,200\n2.5,300\n3.5,30")
    logger = MetricsLogger(str(tmp_path))
    logger.forget_after(200)
    assert path.read_text().splitlines() == ["loss,step", "1.5,100", ",200"]
    logger.log_metrics({"loss": 4.5}, 250)
    logger.save()
    assert path.read_text().splitlines()[3:] == ["4.5,250"]


def test_without_metrics_there_is_nothing_to_drop(tmp_path: Path) -> None:
    MetricsLogger(str(tmp_path)).forget_after(200)
    assert not (tmp_path / "metrics.csv").exists()
