"""Sequences, from their command to their report, in this process."""

import csv
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.sequences import run_stages_here, write_sequence

from lit_mtdqn.cli import main, sequence

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
    assert run(file, out, "--trainer.enable_progress_bar=true", "--threads=2") == 0
    assert commands == []
    assert "Stage 3 of 3: second with weights of first" in capsys.readouterr().out


def test_nothing_builds_on_a_stage_that_has_not_reached_its_score(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = finished
    (row,) = [r for r in rows_of(out / "first/report/test_scores.csv") if r["task"] == "count"]
    score = float(row["score"])
    low = {**STAGES, "first": {**STAGES["first"], "reaches": score}}
    commands = run_stages_here(monkeypatch)
    assert run(write_sequence(tmp_path, low), out) == 0
    high = {**STAGES, "first": {**STAGES["first"], "reaches": score + 0.01}}
    file = write_sequence(tmp_path, high)
    said = rf"^error: `stages\.first` must reach a score of .+ Got {{'count': {score}}}"
    with pytest.raises(SystemExit, match=said):
        main(["sequence", str(file), f"--run_dir={out}"])
    assert commands == []


def test_a_finished_stage_that_is_defined_otherwise_now_is_refused(
    finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = finished
    commands = run_stages_here(monkeypatch)
    with pytest.raises(SystemExit, match=r"^error: `stages\.first` must be as it was .+ Got ") as e:
        main(["sequence", str(file), f"--run_dir={out}", "--data.batch_size=5"])
    assert "data.batch_size = 5 instead of 4" in str(e.value)
    assert commands == []


def test_the_first_failure_ends_it_and_the_next_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_sequence(tmp_path, {"first": {}, "second": {"from": "first"}})
    out = tmp_path / "out"
    commands = run_stages_here(monkeypatch, codes={0: 3})
    assert run(file, out) == 3
    assert len(commands) == 1
    assert not (out / "report").exists()
    # What a stage leaves that was stopped in training: a checkpoint, and no test.
    checkpoint = out / "first" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    again = run_stages_here(monkeypatch, codes={0: 5})
    assert run(file, out) == 5
    assert again == [[*commands[0][:-1], "--ckpt_path=last"]]


def test_a_stage_does_not_go_on_from_one_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_sequence(tmp_path, {"first": {}, "second": {"from": "first"}})
    begun = tmp_path / "out" / "second"
    begun.mkdir(parents=True)
    (begun / "config.yaml").write_text("{}")
    run_stages_here(monkeypatch, codes={0: 9})
    sentence = r"`stages\.second` must not have begun before the stages \['first'\]"
    with pytest.raises(SystemExit, match=sentence):
        main(["sequence", str(file), f"--run_dir={tmp_path / 'out'}"])


def test_each_seed_is_a_sequence_of_its_own_and_the_report_is_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write_sequence(tmp_path, {"only": {"tasks": ["far"]}}), tmp_path / "out"
    run_stages_here(monkeypatch)

    def started(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        main(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", started)
    assert run(file, out, "--seeds", "3,4", "--data.batch_size=5") == 0
    rows = rows_of(out / "report" / "scores.csv")
    assert [row["run"] for row in rows] == ["seed_3", "seed_3", "seed_4", "seed_4"]
    config = yaml.safe_load((out / "seed_4" / "only" / "config.yaml").read_text())
    assert (config["seed_everything"], config["data"]["batch_size"]) == (4, 5)
    assert str(out / "report") in capsys.readouterr().out


def test_ctrl_c_waits_for_the_stage_and_exits_as_any_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[int] = []

    class Interrupted:
        def __init__(self, command: list[str]) -> None:
            assert command[2:] == ["lit_mtdqn", "fit"]

        def wait(self) -> int:
            waits.append(1)
            if len(waits) == 1:
                raise KeyboardInterrupt
            return 1

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    assert sequence._run(["fit"]) == 130
    assert len(waits) == 2


@pytest.mark.parametrize("argument", ["--ckpt_path=last", "--overwrite=true"])
def test_options_of_a_single_run_are_refused(argument: str, tmp_path: Path) -> None:
    file = write_sequence(tmp_path, {"only": {}})
    with pytest.raises(SystemExit, match="`sequence` must be given no option of a single run"):
        main(["sequence", str(file), f"--run_dir={tmp_path / 'out'}", argument])


def test_a_launcher_of_ranks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "1")
    file = write_sequence(tmp_path, {"only": {}})
    with pytest.raises(SystemExit, match="`sequence` must be started once"):
        main(["sequence", str(file), f"--run_dir={tmp_path / 'out'}"])
