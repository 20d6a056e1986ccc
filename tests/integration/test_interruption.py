"""Ctrl-C ends a run with a whole checkpoint that a later command continues from."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

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
    assert process.returncode != 0
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    (clock,) = [state["clock"] for state in checkpoint.values() if _has_clock(state)]
    # 16 updates per phase: a multiple says that it was saved between two phases.
    assert clock["updates"] == clock["phases"] * 16


def _has_clock(state: object) -> bool:
    return isinstance(state, dict) and "clock" in state


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.2)
