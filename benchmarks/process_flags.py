"""How much longer a run takes where denormal numbers are not flushed to zero.

    python benchmarks/process_flags.py

trains a configuration with and without flushing by turns, each run in a process of its own, and
writes `benchmarks/results/process_flags.csv`: a row per repeat with the seconds of both `fit`s,
imports and report left out, by the clock on the wall and by that of the processor, which other
work on the machine sways less.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from built_run import build

from lit_mtdqn.process import configure_process

CONFIG = "configs/dqn/cartpole.yaml"
RESULTS = Path(__file__).parent / "results" / "process_flags.csv"
COLUMNS = (
    *("flushed_seconds", "denormal_seconds"),
    *("flushed_cpu_seconds", "denormal_cpu_seconds"),
    *("ratio", "cpu_ratio"),
)


class Seconds(NamedTuple):
    """How long a `fit` took."""

    wall: float
    cpu: float


def time_fit(flush_denormal: bool, arguments: list[str]) -> Seconds:
    """Train in this process and return the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = build([f"--config={CONFIG}", f"--run_dir={folder}", *arguments])
        configure_process(flush_denormal=flush_denormal)
        started = Seconds(time.perf_counter(), time.process_time())
        run.start()
        ended = Seconds(time.perf_counter(), time.process_time())
    return Seconds(ended.wall - started.wall, ended.cpu - started.cpu)


def in_own_process(flush_denormal: bool, arguments: list[str]) -> Seconds:
    """Return what `time_fit` returns there."""
    command = [sys.executable, __file__, f"--only={flush_denormal}", *arguments]
    output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    return Seconds(*map(float, output.splitlines()[-1].split()))


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--env_steps", type=int, default=60_000)
    parser.add_argument("--only", choices=["True", "False"], help=argparse.SUPPRESS)
    found, rest = parser.parse_known_args()
    if found.only:
        print(*time_fit(found.only == "True", rest))
        return
    arguments = [
        f"--data.total_env_steps={found.env_steps}",
        "--trainer.enable_progress_bar=false",
        *rest,
    ]
    rows = []
    for repeat in range(found.repeats):
        # The second of a pair may find the machine warmer: they swap places.
        order = [True, False] if repeat % 2 == 0 else [False, True]
        seconds = {flush: in_own_process(flush, arguments) for flush in order}
        pairs = list(zip(seconds[True], seconds[False], strict=True))
        ratios = [denormal / flushed for flushed, denormal in pairs]
        rows.append((*(number for pair in pairs for number in pair), *ratios))
        print(f"{repeat}: " + ", ".join(f"{number:.3f}" for number in rows[-1]))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        file.write(f"# python {shlex.join(sys.argv)}\n")
        writer = csv.writer(file)
        writer.writerow(["repeat", *COLUMNS])
        writer.writerows(
            [repeat, *(f"{number:.4f}" for number in row)] for repeat, row in enumerate(rows)
        )
    for name, *values in zip(COLUMNS, *rows, strict=True):
        low, high = min(values), max(values)
        print(f"{name}: median {statistics.median(values):.3f}, {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
