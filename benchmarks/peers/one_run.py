"""One program does one work, and says what it took as a line of JSON.

    python benchmarks/peers/one_run.py ours cartpole --flags on --set total_env_steps=5000

`compare.py` starts it, each time in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from measuring import EVALUATION_SEED, Goal, Stopwatch, evaluate, peak_megabytes
from works import load

# What a program's name begins with, and what it is.
PROGRAMS = {
    "ours": ("with_lit_mtdqn", "Program"),
    "each": ("with_lit_mtdqn", "EachTask"),
    "hand": ("with_nothing", "Program"),
    "sb3": ("with_sb3", "Program"),
    "tianshou": ("with_tianshou", "Program"),
    "torchrl": ("with_torchrl", "Program"),
}
# Seeds that no threshold was looked for with.
FINAL_SEED = 2 * EVALUATION_SEED


def run(name: str, work_name: str, seed: int, flags: bool, replaced: dict[str, Any]) -> Any:
    """Train and return what is to be known of it.

    Args:
        name: Of the program.
        work_name: Of the work.
        seed: Of everything.
        flags: Whether one thread is used and denormal numbers are zero; otherwise PyTorch's own
            number of threads, and they are kept.
        replaced: Numbers in place of the work's.
    """
    work = load(work_name, name, replaced)
    module, kind = PROGRAMS[name.split("_")[0]]
    began = time.perf_counter()
    make = getattr(importlib.import_module(module), kind)
    import torch

    imported, imported_megabytes = time.perf_counter(), peak_megabytes()
    threads = 1 if flags else torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        program = make(work, seed, Path(folder))
        # The kernel counts by threads and may tell some pages fewer than before.
        built, built_megabytes = time.perf_counter(), max(imported_megabytes, peak_megabytes())
        # Last, as a program may set them too.
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flags)
        stopwatch = Stopwatch()
        goal = Goal(work, stopwatch)
        stopwatch.start()
        program.train(goal, stopwatch)
        stopwatch.stop()
        megabytes = max(built_megabytes, peak_megabytes())
    env_steps, updates = program.counts()
    work.check(env_steps, updates)
    return {
        "work": work_name,
        "program": name,
        "flags": "on" if flags else "off",
        "seed": seed,
        "threads": threads,
        "import_seconds": imported - began,
        "build_seconds": built - imported,
        "seconds": stopwatch.wall,
        "cpu_seconds": stopwatch.cpu,
        "env_steps": env_steps,
        "updates": updates,
        "reached": goal.reached if work.threshold is not None else "",
        "final": "" if work.measure is None else min(evaluate(work, program.act, FINAL_SEED)),
        "imported_megabytes": imported_megabytes,
        "built_megabytes": built_megabytes,
        "peak_megabytes": megabytes,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flags", choices=["on", "off"], default="on")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    replaced = {name: yaml.safe_load(text) for name, text in (s.split("=") for s in given.set)}
    row = run(given.program, given.work, given.seed, given.flags == "on", replaced)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
