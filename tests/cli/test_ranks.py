"""Runs of the command line on two ranks."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGS = Path("configs").resolve()
ARGUMENTS = [
    "fit",
    *(
        f"--config={CONFIGS / name}.yaml"
        for name in ("dqn/cartpole", "overlays/ddp", "overlays/bf16", "overlays/smoke")
    ),
    "--trainer.enable_progress_bar=false",
    "--trainer.devices=2",
]
LAUNCHERS = {
    "lightning": ["-m", "lit_mtdqn"],
    "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "lit_mtdqn"],
}


@pytest.mark.parametrize(
    "launcher", ["lightning", pytest.param("torchrun", marks=pytest.mark.slow)]
)
def test_all_ranks_of_a_run_use_one_folder(launcher: str, tmp_path: Path) -> None:
    ours = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_PORT", "LIT_MTDQN_STARTED")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, *LAUNCHERS[launcher], *ARGUMENTS],
        cwd=tmp_path,
        env=environment,
        timeout=200,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("runs/dqn/cartpole/*")
    assert (run / "checkpoints" / "last.ckpt").exists()
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(steps)
    assert steps[-1] >= 2000
    # Each said once.
    assert done.stderr.count("Each of 2 ranks plays") == 1
    assert done.stderr.count("With bf16-mixed networks compute in bfloat16") == 1
