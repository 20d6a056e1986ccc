"""Overlays that log or run elsewhere; those of several ranks run in `test_ranks.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_mtdqn.cli import main

CONFIGS = Path("configs").resolve()


def test_weights_and_biases_holds_what_the_runs_own_files_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    names = ("dqn/cartpole.yaml", "overlays/smoke.yaml", "overlays/wandb.yaml")
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.logger.offline=true"]
    # Lightning says it by this.
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, earlier = tmp_path / "run", ""
    configs = [f"--config={CONFIGS / name}" for name in names]
    resumed = [f"--config={run / 'config.yaml'}", "--ckpt_path=last"]
    for options, env_steps in ((configs, 1000), (resumed, 2000)):
        budget = f"--data.total_env_steps={env_steps}"
        main(["fit", *options, f"--run_dir={run}", *quiet, budget])
        # Until then W&B's service may still be writing.
        wandb.teardown()
        (path,) = set(run.rglob("offline-run-*/run-*.wandb")) - {earlier}
        written, earlier = read_wandb_file(path), path
        assert written.run_id == (run / ID_FILE).read_text()
        own = yaml.safe_load((run / "config.yaml").read_text())
        assert {name: written.config[name] for name in written.config if name != "_wandb"} == own
    assert written.axes["*"] == "env_steps"


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
