"""Overlays that log elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

CONFIGS = Path("configs").resolve()


def test_weights_and_biases_logs_beside_the_runs_own_file(tmp_path: Path) -> None:
    names = ("dqn/cartpole.yaml", "overlays/smoke.yaml", "overlays/wandb.yaml")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lit_mtdqn", "fit", "--run_dir=run"),
            *(f"--config={CONFIGS / name}" for name in names),
            "--trainer.enable_progress_bar=false",
        ],
        cwd=tmp_path,
        env={**os.environ, "WANDB_MODE": "offline"},
        timeout=200,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.csv").stat().st_size > 0
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"train/td_loss/cartpole" in written.read_bytes()
