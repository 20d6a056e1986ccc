"""Sequences, from their command to their report, in this process."""

import csv
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.sequences import run_stages_here, write_sequence

from lit_mtdqn.cli import main

STAGES: dict[str, Any] = {
    "first": {"tasks": ["count"]},
    "scratch": {"tasks": ["far"]},
    "second": {
        "tasks": ["count", "far"],
        "from": "first",
        "replay_from": "first",
        "against": "scratch",
    },
}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(file: Path, folder: Path, *options: str) -> int:
    """Return the exit code of the command."""
    try:
        main(["sequence", str(file), f"--run_dir={folder}", *options])
    except SystemExit as stop:
        code = stop.code
    else:
        return 0
    assert isinstance(code, int), code
    return code


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the file and the folder of a sequence that has been run."""
    folder = tmp_path_factory.mktemp("sequence")
    file = write_sequence(folder, STAGES)
    with pytest.MonkeyPatch.context() as patch:
        run_stages_here(patch)
        assert run(file, folder / "out") == 0
    return file, folder / "out"


def test_each_stage_is_a_run_in_a_folder_of_its_name(finished: tuple[Path, Path]) -> None:
    _, out = finished
    assert {path.name for path in out.iterdir()} == {*STAGES, "report"}
    for name in STAGES:
        left = {path.name for path in (out / name).iterdir()}
        assert left >= {"config.yaml", "metrics.csv", "checkpoints", "report"}


def test_a_stage_starts_from_the_weights_and_learns_from_the_replay_of_another(
    finished: tuple[Path, Path],
) -> None:
    _, out = finished
    config = yaml.safe_load((out / "second" / "config.yaml").read_text())
    (transfer,) = [
        one["init_args"]
        for one in config["trainer"]["callbacks"]
        if one["class_path"].endswith("WeightTransfer")
    ]
    assert transfer["source"] == str(out / "first")
    state = torch.load(out / "second" / "checkpoints" / "last.ckpt", weights_only=True)
    (clock,) = [s["clock"] for s in state.values() if isinstance(s, dict) and "clock" in s]
    assert clock["env_steps"]["count"] == 0
    assert clock["env_steps"]["far"] >= 100


def test_every_task_is_scored_after_every_stage(finished: tuple[Path, Path]) -> None:
    _, out = finished
    rows = rows_of(out / "report" / "scores.csv")
    assert [(row["stage"], row["task"], row["role"]) for row in rows] == [
        ("first", "count", "learns"),
        ("first", "far", "held_out"),
        ("scratch", "count", "held_out"),
        ("scratch", "far", "learns"),
        ("second", "count", "learns"),
        ("second", "far", "learns"),
    ]
    (tested,) = [r for r in rows_of(out / "first/report/test_scores.csv") if r["task"] == "far"]
    assert rows[1]["score"] == tested["score"]
    (gained,) = rows_of(out / "report" / "transfer.csv")
    assert (gained["stage"], gained["against"], gained["task"]) == ("second", "scratch", "far")
    (kept,) = rows_of(out / "report" / "retention.csv")
    assert kept["chain"] == "first > second"
    pictures = {path.name for path in (out / "report").glob("*.png")}
    assert pictures == {"scores.png", "curves.png", "transfer.png"}


def test_finished_stages_are_not_repeated(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = finished
    commands = run_stages_here(monkeypatch)
    # Bars and threads belong to the terminal and the machine.
    monkeypatch.chdir(out.parent)
    assert run(file, Path(out.name), "--trainer.enable_progress_bar=true", "--threads=2") == 0
    assert commands == []
    assert "Stage 3 of 3: second with weights of first" in capsys.readouterr().out


def test_a_finished_stage_that_is_defined_otherwise_now_is_refused(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = finished
    commands = run_stages_here(monkeypatch)
    with pytest.raises(SystemExit, match=r"^error: `stages\.first` must be as it was .+ Got ") as e:
        main(["sequence", str(file), f"--run_dir={out}", "--data.batch_size=5"])
    assert "first with data.batch_size = 5 instead of 4'." in str(e.value)
    assert commands == []


def test_sigterm_ends_the_stage_after_its_phase_and_what_builds_on_it_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stage has a process of its own here, as a user has it."""
    paths = [str(Path("tests").resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    long = {"total_env_steps": 10_000_000, "evaluate_every_env_steps": 400}
    file = write_sequence(tmp_path, {"first": {"data": long}, "second": {"from": "first"}})
    out = tmp_path / "out"
    checkpoint = out / "first" / "checkpoints" / "last.ckpt"
    ended = threading.Event()

    def tell() -> None:
        while not (checkpoint.is_file() or ended.wait(0.05)):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    thread = threading.Thread(target=tell)
    thread.start()
    try:
        assert run(file, out) == 143
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out.startswith(f"Sequence in {out}. To go on with it: --run_dir")
    assert {path.name for path in out.iterdir()} == {"first"}
    assert not (out / "first" / "report" / "test_scores.csv").exists()
    clock = torch.load(checkpoint, weights_only=True)["RolloutDataModule"]["clock"]
    assert clock["updates"] == 2 * clock["phases"] > 0


def test_each_seed_is_a_sequence_of_its_own_and_the_report_is_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write_sequence(tmp_path, {"only": {"tasks": ["far"]}}), tmp_path / "out"
    run_stages_here(monkeypatch)
    assert run(file, out, "--seeds", "3", "--data.batch_size=5") == 0
    assert run(file, out, "--seeds", "4", "--data.batch_size=5") == 0
    rows = rows_of(out / "report" / "scores.csv")
    assert [row["run"] for row in rows] == ["seed_3", "seed_3", "seed_4", "seed_4"]
    with pytest.raises(SystemExit, match=r"seed_3/only with data.batch_size = 6 instead of 5"):
        main(["sequence", str(file), f"--run_dir={out}", "--seeds=5", "--data.batch_size=6"])
    config = yaml.safe_load((out / "seed_4" / "only" / "config.yaml").read_text())
    assert (config["seed_everything"], config["data"]["batch_size"]) == (4, 5)
    assert str(out / "report") in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["--ckpt_path=last", "--overwrite=true"])
def test_options_of_a_single_run_are_refused(argument: str, tmp_path: Path) -> None:
    file = write_sequence(tmp_path, {"only": {}})
    with pytest.raises(SystemExit, match=r"`stages\.only: \w+` must not be set in a sequence"):
        main(["sequence", str(file), f"--run_dir={tmp_path / 'out'}", argument])


def test_a_launcher_of_ranks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "1")
    file = write_sequence(tmp_path, {"only": {}})
    with pytest.raises(SystemExit, match="`sequence` must be started once"):
        main(["sequence", str(file), f"--run_dir={tmp_path / 'out'}"])
