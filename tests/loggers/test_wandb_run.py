from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from helpers.runs import fit, small_data, small_model
from helpers.wandb_file import WandbFile, read_wandb_file
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_mtdqn.loggers import WandbRun
from lit_mtdqn.loggers.wandb_run import ID_FILE


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what this test changes from others."""
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "30")
    yield
    if wandb.run is not None:
        wandb.finish()


def run_of(folder: Path, **options: Any) -> WandbRun:
    return WandbRun(str(folder), project="test", **{"mode": "offline", **options})


def written_to(folder: Path) -> WandbFile:
    wandb.finish()
    # Until then its service may still be writing.
    wandb.teardown()
    return read_wandb_file(folder)


def test_env_steps_are_the_axis_of_all_that_is_logged(tmp_path: Path) -> None:
    logger = run_of(tmp_path)
    logger.log_metrics({"val/score/mean": 0.5}, step=30)
    logger.log_metrics({"train/td_loss": 2.0, "env_steps": 10.0}, step=10)
    written = written_to(tmp_path)
    assert written.axes["*"] == "env_steps"
    assert written.rows == [
        {"val/score/mean": 0.5, "env_steps": 30},
        {"train/td_loss": 2.0, "env_steps": 10},
    ]


def test_a_later_logger_of_a_folder_goes_on_with_its_run(tmp_path: Path) -> None:
    ids = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        logger = run_of(folder)
        logger.log_metrics({"x": 1.0}, step=0)
        ids.append(logger.experiment.id)
        assert (folder / ID_FILE).read_text() == ids[-1]
        wandb.finish()
    assert ids[0] == ids[1] != ids[2]


def test_a_run_that_was_named_is_that_one(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert run_of(tmp_path, id=name).experiment.id == name
        wandb.finish()


def test_without_a_service_a_run_is_logged_offline_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init, asked = wandb.init, []

    def unreachable(**options: Any) -> Any:
        asked.append(options.get("mode"))
        if options.get("mode") != "offline":
            raise wandb.errors.CommError("connection refused\nConsider increasing")
        return init(**options)

    monkeypatch.setattr(wandb, "init", unreachable)
    logger = run_of(tmp_path, mode="online")
    with pytest.warns(UserWarning, match=r"offline \(connection refused\)") as warned:
        logger.log_metrics({"x": 1.0}, step=5)
    assert len(warned) == 1
    assert asked == ["online", "offline"]
    assert written_to(tmp_path).curve("x") == [(5, 1.0)]


ALONE = """
from lit_mtdqn.loggers import WandbRun
WandbRun("run", project="test").log_metrics({"x": 1.0}, step=5)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_without_a_login_nobody_is_asked_for_a_key(tmp_path: Path) -> None:
    from helpers.terminal import run_on_terminal

    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    # Where W&B looks for keys, and what tells it a terminal that can ask.
    environment = {**kept, "HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "TERM": "xterm"}
    command = [sys.executable, "-c", ALONE]
    code, output = run_on_terminal(command, tmp_path, environment, limit=120)
    assert code == 0, output
    assert output.count("Weights & Biases is out of reach, and this run is logged offline") == 1
    assert "Enter your choice" not in output
    assert read_wandb_file(tmp_path / "run").curve("x") == [(5, 1.0)]


def test_the_best_checkpoint_is_an_artifact_where_that_is_asked(tmp_path: Path) -> None:
    kept: dict[bool, list[tuple[str, list[str]]]] = {}
    for asked in (False, True):
        folder = tmp_path / str(asked)
        best = ModelCheckpoint(folder, "best", monitor="val/episode_return/count", mode="max")
        last = ModelCheckpoint(folder, "last")
        data = small_data()
        logger = run_of(folder, log_model=asked)
        options = {"enable_checkpointing": True, "logger": logger, "log_every_n_steps": 1}
        fit(data, small_model(data), best, last, **options)
        kept[asked] = written_to(folder).artifacts
    assert kept[False] == []
    ((name, aliases),) = kept[True]
    assert name.startswith("model-")
    assert sorted(aliases) == ["best", "latest"]
