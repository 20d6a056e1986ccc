"""How much sooner a phase is over where a process of its own plays the next one.

    python benchmarks/background.py

trains configurations with `data.background` and without, in turns, and writes
`benchmarks/results/background.csv`: per configuration and repeat the milliseconds of a phase, its
share that is waited for or spent on playing, and the ratio of the two ways; medians over phases. It
takes two free cores.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from built_run import build
from phase_times import PhaseTimes, Stopwatch

from lit_mtdqn.process import configure_process

RESULTS = Path(__file__).parent / "results"
CONFIGS = (
    "configs/dqn/minatar_breakout.yaml",
    "configs/dqn/lunarlander.yaml",
    "configs/multitask/minatar.yaml",
    "configs/driving/three_tasks.yaml",
)
COLUMNS = ("configuration", "repeat", "without_ms", "playing_share", "with_ms", "waiting_share")


def measure(config: str, background: bool, skip: int, phases: int) -> PhaseTimes:
    """Return the times of a phase."""
    with tempfile.TemporaryDirectory() as folder:
        run = build([f"--config={config}", f"--run_dir={folder}/run", "--save_replays=false",
                     f"--data.background={str(background).lower()}",
                     "--trainer.enable_progress_bar=false"])  # fmt: skip
        stopwatch = Stopwatch(skip, phases)
        trainer: Any = run.trainer
        trainer.callbacks.append(stopwatch)
        data = run.datamodule
        # It stops when its phases are over, and not before.
        data.total_env_steps = data.evaluate_every_env_steps = 10**9
        run.start()
    return stopwatch.medians()


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--phases", type=int, default=100)
    parser.add_argument("--skip", type=int, default=20, help="phases of warm-up, not counted")
    given = parser.parse_args()
    configure_process(1)
    ratios: dict[str, list[float]] = defaultdict(list)
    with (RESULTS / "background.csv").open("w", newline="", buffering=1) as file:
        file.write(f"# python {shlex.join(sys.argv)}\n")
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, "ratio"))
        for repeat in range(given.repeats):
            for config in given.configs:
                found = [measure(config, one, given.skip, given.phases) for one in (False, True)]
                totals = [sum(times) for times in found]
                halves = [
                    text
                    for times, total in zip(found, totals, strict=True)
                    for text in (f"{1e3 * total:.2f}", f"{times.playing / total:.3f}")
                ]
                ratios[config].append(totals[1] / totals[0])
                writer.writerow((config, repeat, *halves, f"{ratios[config][-1]:.3f}"))
    for config, own in ratios.items():
        middle = statistics.median(own)
        print(f"{config}: {middle:.2f} of the time, {min(own):.2f} to {max(own):.2f}")


if __name__ == "__main__":
    main()
