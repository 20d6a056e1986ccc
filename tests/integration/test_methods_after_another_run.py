"""Overlays that keep or follow what an earlier run has learned, from the command line."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from helpers.resuming import check_goes_on

from lit_mtdqn import MultiTaskDQN
from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli import main
from lit_mtdqn.objectives import Anchor, Guidance

CONFIGS = Path("configs").resolve()
RUNS = ("dqn/cartpole", "driving/three_tasks")
BRIEF = [
    f"--config={CONFIGS / 'overlays' / 'smoke.yaml'}",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
    "--data.total_env_steps=1000",
    "--data.eval_max_steps=5",
    "--data.test_episodes=1",
]
LEAVES = [
    "--trainer.callbacks+=lit_mtdqn.callbacks.ReplayCheckpoint",
    "--trainer.callbacks+=lit_mtdqn.callbacks.FisherInformation",
    "--trainer.callbacks.rows=64",
]


def _fit(run: str, *methods: str, folder: str, options: Sequence[str] = ()) -> Path:
    """Run a configuration with overlays in the present folder, and return its folder."""
    configs = [f"{run}.yaml", *(f"methods/{method}.yaml" for method in methods)]
    named = [f"--config={CONFIGS / name}" for name in configs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunReport, "on_fit_end", lambda *_: None)
        main(["fit", *named, *BRIEF, *options, f"--run_dir={folder}"])
    check_goes_on(Path(folder))
    return Path(folder)


@pytest.fixture(scope="module", params=RUNS)
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Enter a folder in which `runs/source` is a run, and yield its configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        _fit(request.param, folder="runs/source", options=LEAVES)
        yield request.param


def _mean_importance(folder: Path) -> float:
    """Return the mean importance of what tasks share."""
    path = folder / "checkpoints" / "fisher.pt"
    found = torch.load(path, weights_only=True)["importance"]
    torso = [tensor.flatten() for name, tensor in found.items() if name.startswith("torso")]
    return float(torch.cat(torso).mean())


METHODS = {RUNS[0]: ("l2_sp", "ewc", "online_ewc"), RUNS[1]: ("online_ewc",)}


def test_anchors_hold_a_run_to_the_one_before(started: str) -> None:
    for method in METHODS[started]:
        folder = _fit(started, method, folder=f"runs/{method}")
        metrics = read_metrics(folder / "metrics.csv")
        assert metrics["train/anchor"].values.max() > 0.0
        model = MultiTaskDQN.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
        (anchor,) = model.objectives
        assert isinstance(anchor, Anchor)
        # What went before counts on, decayed.
        expected = {"ewc": 1.0, "online_ewc": 1.95}.get(method)
        if expected is None:
            assert not (folder / "checkpoints" / "fisher.pt").exists()
        else:
            expected *= len(model.tasks)
            assert _mean_importance(folder) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("started", RUNS[:1], indirect=True)
@pytest.mark.parametrize("method", ["learning_without_forgetting", "rehearsal"])
def test_an_earlier_task_is_kept_beside_a_new_one(started: str, method: str) -> None:
    folder = _fit(started, method, folder=f"runs/{method}")
    metrics = read_metrics(folder / "metrics.csv")
    learns = method == "rehearsal"
    assert ("train/td_loss/cartpole" in metrics) == learns
    assert "train/td_loss/long_pole" in metrics
    assert "rollout/episode_return/cartpole" not in metrics
    assert "val/episode_return/cartpole" in metrics
    model = MultiTaskDQN.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert [info.learns for info in model.tasks] == [learns, True]
    if method == "learning_without_forgetting":
        (guidance,) = model.objectives
        assert isinstance(guidance, Guidance)
        assert metrics["train/guidance"].values.max() > 0.0


@pytest.mark.parametrize("started", RUNS[:1], indirect=True)
@pytest.mark.parametrize("method", ["kickstarting", "qdagger"])
def test_a_teacher_is_followed_beside_rewards(started: str, method: str) -> None:
    folder = _fit(started, method, folder=f"runs/{method}")
    metrics = read_metrics(folder / "metrics.csv")
    assert "train/td_loss/cartpole" in metrics
    assert metrics["train/guidance"].values.max() > 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunReport, "on_fit_end", lambda *_: None)
        resumed = [f"--config={folder}/config.yaml", "--ckpt_path=last"]
        main(["fit", *resumed, "--data.total_env_steps=1500"])
    assert read_metrics(folder / "metrics.csv")["env_steps"].env_steps[-1] >= 1500
