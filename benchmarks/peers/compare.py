"""The same work by peers and by us, one after another, again and again.

    python benchmarks/peers/compare.py cartpole --repeats 3

Every program runs in a process of its own, with the process flags that `lit-mtdqn` sets (one
thread, denormal numbers are zero) and without, in turns, and each repeat begins with another one.
Rows go to `benchmarks/results/peers/<work>.csv` as runs end, with a picture beside them; a peer
that is not installed is left out, or has an interpreter of its own:

    python benchmarks/peers/compare.py cartpole --python tianshou=/path/to/bin/python

`works.yaml` has the works. Then it prints, for every program and both ways, medians over repeats
and how many times longer the program takes than we do in the same repeat, with the range: per env
step, and of works with a threshold the whole training. `equal` is against us with equal flags,
`usual` against `lit-mtdqn` as it comes, with them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure
from works import programs_of

from lit_mtdqn.analysis.panels import COLOURS, INK, MUTED

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "peers"
PACKAGES = {"sb3": "stable_baselines3", "tianshou": "tianshou", "torchrl": "torchrl"}
OURS = "ours"
Row = dict[str, Any]
# A program, with flags or without.
Key = tuple[str, str]


def one_run(
    python: str, program: str, work: str, flags: str, seed: int, replaced: list[str]
) -> Row:
    """Return the row of a program in a process of its own."""
    command = [python, str(HERE / "one_run.py"), program, work, f"--seed={seed}"]
    command += [f"--flags={flags}", "--set", *replaced]
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, text=True, capture_output=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr[-2000:]}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def installed(program: str, pythons: dict[str, str]) -> bool:
    """Return whether a program can be started."""
    package = PACKAGES.get(program.split("_")[0])
    return program in pythons or package is None or find_spec(package) is not None


def cost(row: Row, clock: str) -> float:
    """Return seconds per env step, or of the whole training where that ends at a threshold."""
    if row["reached"] != "":
        return float(row[clock]) if row["reached"] else float("inf")
    return float(row[clock]) / int(row["env_steps"])


def ratios(rows: list[Row], key: Key, flags: str, clock: str) -> list[float]:
    """Return how many times longer a program took than we did, in each repeat that has both.

    Args:
        rows: Of one work.
        key: The program.
        flags: With which we are compared.
        clock: `seconds` or `cpu_seconds`.
    """
    by_seed = {(row["program"], row["flags"], row["seed"]): cost(row, clock) for row in rows}
    pairs = [
        (value, by_seed.get((OURS, flags, s))) for (*k, s), value in by_seed.items() if (*k,) == key
    ]
    return [theirs / ours for theirs, ours in pairs if ours]


def summarise(rows: list[Row]) -> dict[Key, list[float]]:
    """Print a line for every program and return its ratios to us as we come, by the wall clock."""
    grouped: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["program"], row["flags"]].append(row)
    found = {}
    for key, own in grouped.items():
        middle = {
            name: statistics.median(float(row[name]) for row in own)
            for name in ("seconds", "cpu_seconds", "env_steps", "updates", "peak_megabytes")
        }
        finals = [float(row["final"]) for row in own if row["final"] != ""]
        reached = [bool(row["reached"]) for row in own if row["reached"] != ""]
        texts = [
            f"{key[0]:12s} flags {key[1]:3s}",
            f"{middle['seconds']:.1f} s ({middle['cpu_seconds']:.1f} s CPU)",
            f"{middle['env_steps'] / middle['seconds']:.0f} env steps/s",
            f"{middle['updates'] / middle['seconds']:.0f} updates/s",
            f"{middle['peak_megabytes']:.0f} MB",
            f"final {statistics.median(finals):.1f}" if finals else "",
            f"reached {sum(reached)} of {len(reached)}" if reached else "",
        ]
        for name, flags in (("usual", "on"), ("equal", key[1])):
            for clock in ("seconds", "cpu_seconds"):
                times = ratios(rows, key, flags, clock)
                if times:
                    spread = f"({min(times):.2f} to {max(times):.2f})"
                    texts.append(f"{name} {clock} x {statistics.median(times):.2f} {spread}")
        print("; ".join(text for text in texts if text))
        found[key] = ratios(rows, key, "on", "seconds")
    return found


def draw(found: dict[Key, list[float]], work: str) -> Figure:
    """Return a figure of ratios: a bar to the median, a dot for each repeat.

    Args:
        found: Ratios to us as we come, by program.
        work: Named above.
    """
    figure = Figure(figsize=(7.0, 0.8 + 0.32 * len(found)), layout="constrained")
    panel = figure.add_subplot()
    labels = [f"{program}{'' if flags == 'on' else ', no flags'}" for program, flags in found]
    for place, ((program, flags), times) in enumerate(found.items()):
        finite = [time for time in times if time != float("inf")]
        if not finite:
            panel.text(0.02, place, "threshold not reached", va="center", color=MUTED, fontsize=8)
            continue
        colour = COLOURS[0] if program.startswith(OURS) else COLOURS[1 % len(COLOURS)]
        alpha = 1.0 if flags == "on" else 0.5
        panel.barh(place, statistics.median(times), color=colour, alpha=alpha, height=0.7)
        panel.plot(finite, [place] * len(finite), ".", color=INK, ms=4)
    panel.axvline(1.0, color=INK, lw=0.8)
    panel.set_yticks(range(len(labels)), labels, fontsize=8)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel(f"{work.replace('_', ' ')}: time over that of lit-mtdqn", fontsize=9)
    return figure


def read(path: Path) -> list[Row]:
    """Return the rows of a results file."""
    with path.open(newline="") as file:
        next(file)
        rows: list[Row] = list(csv.DictReader(file))
    return [{**row, "reached": row["reached"] and row["reached"] == "True"} for row in rows]


def main() -> None:
    """Run, write, print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--programs", nargs="*", help="default: all of the work")
    parser.add_argument("--flags", nargs="*", choices=["on", "off"], default=["on", "off"])
    parser.add_argument("--python", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="of the work")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    pythons = dict(text.split("=") for text in given.python)
    programs = given.programs or programs_of(given.work)
    missing = [name for name in programs if not installed(name, pythons)]
    if missing:
        print(f"Not installed, and left out: {', '.join(missing)}")
    keys = [(name, flags) for name in programs if name not in missing for flags in given.flags]
    given.results.mkdir(parents=True, exist_ok=True)
    path = given.results / f"{given.work}.csv"
    writer = None
    with path.open("w", newline="", buffering=1) as file:
        file.write(f"# python {shlex.join(sys.argv)}\n")
        for repeat in range(given.repeats):
            # A program that always came first would find the machine as it was left.
            first = repeat * len(given.flags) % len(keys)
            for program, flags in [*keys[first:], *keys[:first]]:
                python = pythons.get(program, sys.executable)
                seed = given.first_seed + repeat
                row = one_run(python, program, given.work, flags, seed, given.set)
                rounded = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}
                if writer is None:
                    writer = csv.DictWriter(file, list(rounded))
                    writer.writeheader()
                writer.writerow(rounded)
                print(yaml.safe_dump(rounded, default_flow_style=True, width=1000).strip())
    found = summarise(read(path))
    draw(found, given.work).savefig(path.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
