import os
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from lit_mtdqn.analysis.run_search import is_repeat
from lit_mtdqn.cli.run_folder import (
    check_run_dir,
    choose_run_dir,
    clear_run_dir,
    known_run,
    release_run_dir,
)

DATE = "2000-01-01_00-00-00"


def _options(*configurations: str | Path, **options: Any) -> Namespace:
    unset: dict[str, Any] = {"run_dir": None, "ckpt_path": None}
    given = {**unset, "config": [str(path) for path in configurations], **options}
    return Namespace(**given)  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCAL_RANK", "NODE_RANK", "LIT_MTDQN_STARTED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run."""
    folder = tmp_path / "runs" / "cartpole" / DATE
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    return folder


def test_the_default_folder_is_named_after_the_configuration() -> None:
    folder = Path(choose_run_dir(_options("configs/dqn/cartpole.yaml"), "fit"))
    assert folder.parent == Path("runs/dqn/cartpole")
    datetime.strptime(folder.name, "%Y-%m-%d_%H-%M-%S")
    assert is_repeat(folder)
    assert Path(choose_run_dir(_options("/elsewhere/mine.yaml"), "fit")).parent == Path("runs/mine")
    assert Path(choose_run_dir(_options(), "fit")).parent == Path("runs/run")


def test_a_file_called_config_outside_of_a_run_is_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    folder = choose_run_dir(_options(tmp_path / "config.yaml"), "fit")
    assert Path(folder).parent == Path("runs/config")


def test_a_runs_own_configuration_repeats_it_beside_it(run: Path) -> None:
    folder = Path(choose_run_dir(_options(run / "config.yaml"), "fit"))
    assert folder.parent == run.parent
    assert folder != run


def test_a_run_is_repeated_beside_it_from_inside_its_folder(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    folder = Path(choose_run_dir(_options("config.yaml"), "fit"))
    assert folder.resolve().parent == run.parent


def test_a_runs_own_configuration_and_checkpoint_resume_it(run: Path) -> None:
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    assert choose_run_dir(_options(run / "config.yaml", ckpt_path=checkpoint), "fit") == str(run)


def test_the_checkpoint_of_another_run_does_not_lead_into_that_run(run: Path) -> None:
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    options = _options("configs/dqn/cartpole.yaml", ckpt_path=checkpoint)
    assert Path(choose_run_dir(options, "fit")).parent == Path("runs/dqn/cartpole")


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_an_evaluation_goes_beside_its_checkpoint(run: Path, subcommand: str) -> None:
    checkpoint = str(run / "checkpoints" / "best.ckpt")
    options = _options("configs/dqn/cartpole.yaml", ckpt_path=checkpoint)
    assert choose_run_dir(options, subcommand) == str(run / subcommand)
    assert choose_run_dir(_options(run / "config.yaml"), subcommand) == str(run / subcommand)


def test_the_folder_of_the_command_line_comes_first(run: Path) -> None:
    options = _options(run / "config.yaml", run_dir="mine", ckpt_path=str(run / "checkpoints/a"))
    assert choose_run_dir(options, "fit") == "mine"
    assert choose_run_dir(options, "test") == str(Path("mine") / "test")
    assert known_run(options) == Path("mine")


def test_only_a_folder_or_a_runs_own_configuration_names_a_run(run: Path) -> None:
    assert known_run(_options(run / "config.yaml", "configs/overlays/smoke.yaml")) == run
    assert known_run(_options("configs/dqn/cartpole.yaml")) is None
    assert known_run(_options()) is None


def test_ranks_that_the_first_one_launches_take_its_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = choose_run_dir(_options("a.yaml"), "fit")
    monkeypatch.setenv("LIT_MTDQN_STARTED", DATE)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_run_dir(_options("a.yaml"), "fit") == str(Path("runs/a") / DATE)
    monkeypatch.delenv("LOCAL_RANK")
    assert choose_run_dir(_options("a.yaml"), "fit") >= first
    assert Path(first).name <= os.environ["LIT_MTDQN_STARTED"]


def test_ranks_that_start_together_take_the_time_of_their_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    launched = datetime.fromtimestamp(psutil.Process(os.getppid()).create_time())
    folder = Path(choose_run_dir(_options("a.yaml"), "fit"))
    assert folder.name == launched.strftime("%Y-%m-%d_%H-%M-%S")


def test_a_folder_that_holds_a_run_is_refused_with_the_ways_out(run: Path) -> None:
    with pytest.raises(ValueError, match=r"must not hold a run already.*--ckpt_path last"):
        check_run_dir(str(run), overwrite=False, resuming=False)


def test_a_folder_that_is_resumed_or_replaced_is_accepted(run: Path) -> None:
    check_run_dir(str(run), overwrite=False, resuming=True)
    check_run_dir(str(run), overwrite=True, resuming=False)
    assert (run / "config.yaml").exists()


def test_two_runs_of_one_second_get_folders_of_their_own() -> None:
    folders = []
    for _ in range(3):
        os.environ.pop("LIT_MTDQN_STARTED", None)
        folders.append(choose_run_dir(_options("a.yaml"), "fit"))
    assert len(set(folders)) == 3


def test_a_folder_into_which_nothing_was_written_is_released() -> None:
    used, unused = (Path(choose_run_dir(_options(name), "fit")) for name in ("a.yaml", "b.yaml"))
    (used / "config.yaml").touch()
    release_run_dir()
    assert used.exists()
    assert not unused.exists()


@pytest.mark.parametrize("variable", ["rank", "NODE_RANK"])
def test_other_ranks_neither_refuse_nor_clear_a_folder(
    variable: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable == "rank":
        monkeypatch.setattr(rank_zero_only, "rank", 1)
    else:
        monkeypatch.setenv(variable, "1")
    check_run_dir(str(run), overwrite=False, resuming=False)
    clear_run_dir(str(run))
    assert (run / "config.yaml").exists()


def test_overwriting_removes_the_run_and_nothing_else(run: Path) -> None:
    (run / "test").mkdir()
    for name in ("metrics.csv", "checkpoints/last.ckpt", "test/metrics.csv", "notes.txt"):
        (run / name).touch()
    clear_run_dir(str(run))
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
