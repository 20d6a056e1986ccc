"""A run that learns from what an earlier run has stored, through the command line."""

from pathlib import Path

import pytest

from lit_mtdqn import MultiTaskDQN
from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli import main

CONFIGS = Path("configs").resolve()
SMALL = (
    "--data.total_env_steps=500",
    "--data.eval_max_steps=5",
    "--data.batch_size=8",
    "--model.network.torso.hidden=[8]",
)
STORES = "--trainer.callbacks+=lit_mtdqn.callbacks.ReplayCheckpoint"


def _fit(run_dir: str, *configs: str, options: tuple[str, ...] = ()) -> None:
    paths = ["dqn/cartpole.yaml", *configs, "overlays/smoke.yaml"]
    arguments = [f"--config={CONFIGS / path}" for path in paths]
    quiet = ["--trainer.enable_progress_bar=false", f"--run_dir={run_dir}"]
    main(["fit", *arguments, *quiet, *SMALL, *options])


@pytest.mark.parametrize(
    ("method", "term"),
    [("instance_transfer", "importance_correction"), ("source_gradients_literal", "source_rows")],
)
def test_the_overlay_runs_on_the_replay_of_an_earlier_run_and_resumes(
    method: str, term: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    _fit("runs/source", options=(STORES,))
    _fit("runs/target", f"methods/{method}.yaml")
    metrics = read_metrics(tmp_path / "runs" / "target" / "metrics.csv")
    assert {"train/td_loss/old", f"train/{term}"} <= metrics.keys()
    assert "val/score/old" not in metrics
    again = ["--config=runs/target/config.yaml", "--run_dir=runs/target", "--ckpt_path=last"]
    main(["fit", *again, "--data.total_env_steps=800"])
    model = MultiTaskDQN.load_from_checkpoint(tmp_path / "runs/target/checkpoints/last.ckpt")
    assert [info.head for info in model.tasks] == ["cartpole", "cartpole"]
