"""Train a configuration with several seeds and keep what its last checkpoints reach.

    python benchmarks/train.py configs/driving/three_tasks.yaml --seeds 0..4 --episodes 500

writes `benchmarks/results/<configuration>.csv`, one row per seed and task: the test of the last
network on seeds that are used for nothing else, with the wall time of the whole command; and the
learning curves of all seeds beside it as a picture.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.analysis.plots import learning_curves
from lit_mtdqn.cli.seeds import parse_seeds

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("success", "score", "mean", "std", "episodes")


def run(config: Path, seed: int, episodes: int, folder: Path, rest: list[str]) -> float:
    """Run one seed in a process of its own and return its seconds, imports and report included."""
    command = [
        *(sys.executable, "-m", "lit_mtdqn", "fit", f"--config={config}"),
        *(f"--seed_everything={seed}", f"--run_dir={folder}", "--overwrite=true"),
        *(f"--data.test_episodes={episodes}", "--trainer.enable_progress_bar=false", *rest),
    ]
    started = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - started


def read_scores(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a run's test, one per task."""
    with (folder / "report" / "test_scores.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["episodes"]]


def summarise(rows: list[dict[str, str]]) -> None:
    """Print each task's median and worst seed."""
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        for column in ("success", "score", "mean"):
            values = [float(row[column]) for row in own if row.get(column)]
            if values:
                low, high = min(values), max(values)
                middle = f"median {np.median(values):.3f}, mean {np.mean(values):.3f}"
                print(f"{task:14s} {column:8s} {middle}, range {low:.3f} to {high:.3f}")
    seconds = sorted({(row["seed"], float(row["seconds"])) for row in rows})
    print("seconds per run:", ", ".join(f"{value:.0f}" for _, value in seconds))


def main() -> None:
    """Train, write, summarise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", default="0..4")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--name", help="name of the results; default: of the configuration")
    found, rest = parser.parse_known_args()
    name = found.name or found.config.stem
    rows = []
    folders = []
    for seed in parse_seeds(found.seeds):
        folder = found.runs / name / f"seed_{seed}"
        seconds = run(found.config, seed, found.episodes, folder, rest)
        folders.append(folder)
        for row in read_scores(folder):
            kept = {column: row.get(column, "") for column in COLUMNS}
            rows.append(
                {"seed": str(seed), "task": row["task"], **kept, "seconds": f"{seconds:.1f}"}
            )
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        file.write(f"# python {shlex.join(sys.argv)}\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    curves = learning_curves([read_metrics(folder / "metrics.csv") for folder in folders])
    curves.savefig(RESULTS / f"{name}.png", dpi=120)
    summarise(rows)


if __name__ == "__main__":
    main()
