"""Whether a long run goes on taking memory.

    python benchmarks/soak.py --minutes 30

trains the driving tasks with a small replay, which is full after seconds, with an evaluation, a
checkpoint and rows of metrics every few seconds, and looks at the memory of the process all the
time. `benchmarks/results/soak.csv` has the megabytes it keeps (resident, files aside) by minute,
and `soak.png` shows them. Then it prints how much the memory grows in an hour after the first
third, with a 95 % interval: means of blocks are held against one another, because what is looked at
twice within a second is not seen twice.
"""

from __future__ import annotations

import argparse
import csv
import math
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from matplotlib.figure import Figure
from scipy import stats

from lit_mtdqn.analysis.panels import COLOURS, GRID, INK

RESULTS = Path(__file__).parent / "results"
CONFIG = "configs/driving/three_tasks.yaml"
BLOCKS = 20
Array = np.ndarray


def command(minutes: float, folder: Path) -> list[str]:
    """Return what trains for some minutes."""
    whole, seconds = divmod(round(60 * minutes), 60)
    return [
        *(sys.executable, "-m", "lit_mtdqn", "fit", f"--config={CONFIG}", f"--run_dir={folder}"),
        *("--data.replay_capacity=20000", "--data.total_env_steps=1000000000"),
        *("--data.evaluate_every_env_steps=100000", "--trainer.enable_progress_bar=false"),
        f"--trainer.max_time=00:{whole // 60:02d}:{whole % 60:02d}:{seconds:02d}",
    ]


def watched(minutes: float, every: float) -> tuple[Array, Array]:
    """Return minutes and megabytes of a run, [P] each."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        started = time.monotonic()
        process = psutil.Popen(command(minutes, Path(folder, "run")), stdout=log, stderr=log)
        seen: list[tuple[float, float]] = []
        while process.poll() is None:
            memory = process.memory_info()
            own = (memory.rss - memory.shared) / 2**20
            seen.append(((time.monotonic() - started) / 60, own))
            time.sleep(every)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    # What it takes to end is no training.
    times, megabytes = np.array([point for point in seen if point[0] < minutes]).T
    return times, megabytes


def growth(minutes: Array, megabytes: Array) -> tuple[float, float]:
    """Return the slope in megabytes per hour after the first third, and half its interval."""
    late = minutes >= minutes[-1] / 3
    blocks = zip(
        np.array_split(minutes[late], BLOCKS), np.array_split(megabytes[late], BLOCKS), strict=True
    )
    times, means = np.array([(own.mean() / 60, block.mean()) for own, block in blocks]).T
    line = stats.linregress(times, means)
    return float(line.slope), float(stats.t.ppf(0.975, BLOCKS - 2) * line.stderr)


def draw(minutes: Array, megabytes: Array) -> Figure:
    """Return a figure of memory over time."""
    figure = Figure(figsize=(6.0, 3.2), layout="constrained")
    panel = figure.add_subplot()
    panel.plot(minutes, megabytes, color=COLOURS[0], lw=1.2)
    panel.set_ylim(0, 1.15 * megabytes.max())
    panel.set_xlabel("minutes", color=INK, fontsize=9)
    panel.set_ylabel("megabytes", color=INK, fontsize=9)
    panel.grid(color=GRID, lw=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Watch a run and write what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks")
    given = parser.parse_args()
    minutes, megabytes = watched(given.minutes, given.every)
    slope, half = growth(minutes, megabytes)
    found = f"{slope:+.2f} MB an hour, 95 % interval {slope - half:+.2f} to {slope + half:+.2f}"
    with (RESULTS / "soak.csv").open("w", newline="") as file:
        file.write(f"# python {shlex.join(sys.argv)}: {found}\n")
        writer = csv.writer(file)
        writer.writerow(["minute", "megabytes"])
        for minute in range(math.ceil(minutes[-1])):
            own = megabytes[(minutes >= minute) & (minutes < minute + 1)]
            if len(own):
                writer.writerow([minute, f"{own.mean():.2f}"])
    draw(minutes, megabytes).savefig(RESULTS / "soak.png", dpi=120)
    print(found)


if __name__ == "__main__":
    main()
