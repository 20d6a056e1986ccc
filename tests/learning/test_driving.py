"""The main job, cut to a third: one network learns three tasks."""

from pathlib import Path

import pytest

from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.cli import main

TASKS = ("lane_keeping", "pedestrian", "traffic_light")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_one_network_learns_three_tasks(seed: int, tmp_path: Path) -> None:
    arguments = ["--data.total_env_steps=500000", "--trainer.enable_progress_bar=false"]
    main(
        [
            *("fit", "--config", "configs/driving/three_tasks.yaml", *arguments),
            *(f"--run_dir={tmp_path / 'run'}", f"--seed_everything={seed}"),
        ]
    )
    metrics = read_metrics(tmp_path / "run" / "metrics.csv")
    assert min(metrics[f"val/success/{task}"].values[-1] for task in TASKS) >= 0.9
