"""Overlays that log or run elsewhere; those of several ranks run in `test_ranks.py`."""

from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from helpers.wandb_file import read_wandb_file

from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli import main
from lit_mtdqn.loggers.wandb_run import ID_FILE

CONFIGS = Path("configs").resolve()


def test_weights_and_biases_holds_what_the_runs_own_files_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    names = ("dqn/cartpole.yaml", "overlays/smoke.yaml", "overlays/wandb.yaml")
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.logger.offline=true"]
    # Lightning sets it.
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, known = tmp_path / "run", set[Path]()
    rows: list[dict[str, Any]] = []
    configs = [f"--config={CONFIGS / name}" for name in names]
    resumed = [f"--config={run / 'config.yaml'}", "--ckpt_path=last"]
    small = ["--model.network.torso.hidden=[8]", "--data.batch_size=8"]
    for options, env_steps in (([*configs, *small], 600), (resumed, 900)):
        budget = f"--data.total_env_steps={env_steps}"
        main(["fit", *options, f"--run_dir={run}", *quiet, budget])
        wandb.finish()
        # Until then its service may still be writing.
        wandb.teardown()
        (path,) = set(run.rglob("offline-run-*/run-*.wandb")) - known
        known.add(path)
        written = read_wandb_file(path)
        assert written.run_id == (run / ID_FILE).read_text()
        own = yaml.safe_load((run / "config.yaml").read_text())
        assert {name: written.config[name] for name in written.config if name != "_wandb"} == own
        assert written.axes["*"] == "env_steps"
        rows.extend(written.rows)
    metrics = read_metrics(run / "metrics.csv")
    assert {"train/td_loss/cartpole", "val/score/mean"} <= metrics.keys()
    assert metrics.pop("env_steps").env_steps[-1] >= 900
    for name, curve in metrics.items():
        logged = [(row["env_steps"], row[name]) for row in rows if name in row]
        assert logged == list(zip(curve.env_steps.tolist(), curve.values.tolist(), strict=True))
    assert {"video/cartpole/_type"} <= set().union(*rows)


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


def test_one_device_is_one_where_a_machine_has_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for overlay in ("gpu", "device_resident"):
        paths = [
            f"--config={CONFIGS / n}.yaml" for n in ("driving/three_tasks", f"overlays/{overlay}")
        ]
        with pytest.raises(SystemExit):
            main(["fit", *paths, "--print_config"])
        given = yaml.safe_load(capsys.readouterr().out)["trainer"]
        assert (given["accelerator"], given["devices"]) == ("gpu", 1)
