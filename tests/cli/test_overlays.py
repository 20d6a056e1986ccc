"""Overlays that log or run elsewhere; those of several ranks run in `test_ranks.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_mtdqn.cli import main

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


def test_hardware_is_laid_over_a_run_and_leaves_its_callbacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("driving/three_tasks", "overlays/gpu", "overlays/ddp", "overlays/bf16")
    paths = [f"--config={CONFIGS / name}.yaml" for name in names]
    with pytest.raises(SystemExit):
        main(["fit", *paths, "--print_config"])
    given = yaml.safe_load(capsys.readouterr().out)["trainer"]
    chosen = {name: given[name] for name in ("accelerator", "devices", "strategy", "precision")}
    expected = {"accelerator": "gpu", "devices": "auto", "strategy": "ddp"}
    assert chosen == {**expected, "precision": "bf16-mixed"}
    assert len(given["callbacks"]) == 2
