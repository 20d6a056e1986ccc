"""What a run that is cut off, or cannot go on, leaves behind."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs import quiet_trainer, small_data, small_model
from helpers.stopped_runs import Signalling
from helpers.telling_env import Telling
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_mtdqn.cli import main
from lit_mtdqn.cli.recording import MetricsLogger, run_callbacks

START_SECONDS = 120
STOP_SECONDS = 30


def test_ctrl_c_leaves_a_checkpoint_within_thirty_seconds(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [sys.executable, "-m", "lit_mtdqn", "fit", "--config=configs/dqn/cartpole.yaml"]
    arguments = [f"--run_dir={run_dir}", "--data.total_env_steps=10000000"]
    process = subprocess.Popen([*command, *arguments, "--data.evaluate_every_env_steps=2000"])
    try:
        _wait_for(run_dir / "checkpoints" / "best.ckpt")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=STOP_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    (clock,) = [state["clock"] for state in checkpoint.values() if _has_clock(state)]
    # 16 updates per phase: a multiple says that it was saved between two phases.
    assert clock["updates"] == clock["phases"] * 16


CODES = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


def _code_of(command: str, run_dir: Path, *arguments: str) -> Any:
    """Run a command in which an environment sends a signal once it is armed; return its code."""
    # What is started in the background may have been told to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *(command, "--config=configs/dqn/cartpole.yaml", f"--run_dir={run_dir}"),
                "--data.tasks.cartpole.wrappers=[helpers.telling_env.Telling]",
                "--trainer.enable_progress_bar=false",
                *arguments,
            ]
        )
    return ended.value.code


# In the warm-up, in an evaluation and in the final test.
@pytest.mark.parametrize("hook", ["on_train_start", "on_validation_start", "on_fit_end"])
@CODES
def test_a_signal_ends_what_is_played_at_once_where_nothing_is_lost(
    hook: str, number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Telling, "armed", None)
    monkeypatch.setattr(Telling, "steps_since", 0)
    arming = (
        f"{{class_path: helpers.telling_env.Arming, init_args: {{hook: {hook}, number: {number}}}}}"
    )
    smoke = "--config=configs/overlays/smoke.yaml"
    assert _code_of("fit", tmp_path / "run", smoke, f"--trainer.callbacks+={arming}") == code
    assert Telling.steps_since == 0
    # Where something was learned, it is kept.
    saved = (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert saved == (hook != "on_train_start")
    assert not (tmp_path / "run" / "report" / "test_scores.csv").exists()


@CODES
@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_signal_ends_a_command_that_only_evaluates_at_once(
    command: str, number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Telling, "armed", number)
    monkeypatch.setattr(Telling, "steps_since", 0)
    assert _code_of(command, tmp_path / "run") == code
    assert (Telling.armed, Telling.steps_since) == (None, 0)


def test_a_run_whose_numbers_overflow_keeps_what_was_sound(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    overflowing = "{class_path: helpers.failing_env.OverflowingReward, init_args: {after: 100}}"
    configs = ["configs/dqn/cartpole.yaml", "configs/overlays/smoke.yaml"]
    arguments = [
        *("fit", *(f"--config={config}" for config in configs), f"--run_dir={run_dir}"),
        f"--data.tasks.cartpole.wrappers=[{overflowing}]",
        "--data.evaluate_every_env_steps=500",
        "--data.eval_max_steps=10",
        "--trainer.enable_progress_bar=false",
    ]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    pattern = (
        r"error: `reward` of task cartpole must be finite\. Got inf from its environment \d+ \(the"
    )
    assert re.match(pattern, str(ended.value))
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(bool(weights.isfinite().all()) for weights in checkpoint["state_dict"].values())
    (clock,) = [state["clock"] for state in checkpoint.values() if _has_clock(state)]
    assert clock["updates"] > 0
    steps = torch.load(run_dir / "non_finite_steps.pt", weights_only=True)
    reward = steps["reward"]
    assert reward[: steps["step"]].isfinite().all()
    assert reward[steps["step"]] == torch.inf


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_has_its_checkpoint_before_its_curves_and_without_them(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def draw(*_: object) -> None:
        saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
        found.append(saved["RolloutDataModule"]["clock"]["phases"])
        raise OSError("report is in the way")

    monkeypatch.setattr("lit_mtdqn.callbacks.run_report._draw_figures", draw)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    data = small_data(total_env_steps=400)
    # The third phase of the five before an evaluation.
    callbacks = [Signalling("on_train_batch_start", 3, number)]
    trainer = quiet_trainer(
        *callbacks,
        *run_callbacks(str(tmp_path), callbacks, True, True),
        default_root_dir=tmp_path,
        enable_checkpointing=True,
        logger=MetricsLogger(str(tmp_path)),
    )
    with (
        pytest.raises(SystemExit) as ended,
        pytest.warns(UserWarning, match=r"No learning curves in .*report: report is in the way"),
    ):
        trainer.fit(small_model(data), data)
    assert isinstance(ended.value, SIGTERMException) == (number == signal.SIGTERM)
    assert found == [3]
    assert (tmp_path / "replay" / "rank_0" / "count").is_dir()


def _has_clock(state: object) -> bool:
    return isinstance(state, dict) and "clock" in state


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.2)
