"""The same work by peers and by us, one after another, again and again.

    python benchmarks/peers/compare.py cartpole --repeats 3

Every program runs in a process of its own, with the process flags that `lit-mtdqn` sets (one
thread, denormal numbers are zero) and without, in turns, and each repeat begins with another one.
Rows go to `benchmarks/results/peers/<work>.csv` as runs end, with a picture beside them; a peer
that is not installed is left out, or has an interpreter of its own:

    python benchmarks/peers/compare.py cartpole --python tianshou=/path/to/bin/python

`works.yaml` has the works. Then it prints, for every program and both ways, medians over repeats
and how many times as much the program takes as we do in the same repeat, with the range: seconds
per env step and per update, of works with a threshold those of the whole training; and memory.
`equal` is against us with equal flags, `usual` against `lit-mtdqn` as it comes, with them. Where
others work on the same machine, seconds of the processor say more (`--draw cpu_seconds`), but for
runs without flags, whose threads wait for one another.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
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
MEMORY = "peak_megabytes"
TAKEN = ("seconds", "cpu_seconds", MEMORY)
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


def cost(row: Row, what: str, by: str = "env_steps") -> float:
    """Return seconds per env step, or of the whole training where that ends at a threshold.

    Args:
        row: Of a run.
        what: Name of a column; megabytes are what they are.
        by: `env_steps` or `updates`.
    """
    value = float(row[what])
    if what == MEMORY:
        return value
    if row["reached"] != "":
        return value if row["reached"] else math.inf
    return value / int(row[by])


def ratios(rows: list[Row], key: Key, flags: str, what: str, by: str = "env_steps") -> list[float]:
    """Return how many times as much as we a program took, in each repeat that has both.

    Args:
        rows: Of one work.
        key: The program.
        flags: With which we are compared.
        what: One of `TAKEN`.
        by: As of `cost`.
    """
    by_seed = {(row["program"], row["flags"], row["seed"]): cost(row, what, by) for row in rows}
    pairs = [
        (value, by_seed.get((OURS, flags, s))) for (*k, s), value in by_seed.items() if (*k,) == key
    ]
    return [theirs / ours for theirs, ours in pairs if ours]


def summarise(rows: list[Row], what: str = "seconds") -> dict[Key, list[float]]:
    """Print some lines for every program and return its ratios to us as we come.

    Args:
        rows: Of one work.
        what: Of which they are returned, one of `TAKEN`.
    """
    grouped: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["program"], row["flags"]].append(row)
    for key, own in grouped.items():
        print(describe(own))
        for name, flags in (("usual", "on"), ("equal", key[1])):
            found = {taken: ratios(rows, key, flags, taken) for taken in TAKEN}
            if own[0]["reached"] == "":
                # Programs that count env steps otherwise make more or fewer updates for them.
                found["seconds by update"] = ratios(rows, key, flags, "seconds", "updates")
            texts = [
                f"{taken} x {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
                for taken, times in found.items()
                if times
            ]
            print(f"    {name}: {', '.join(texts)}")
    return {key: ratios(rows, key, "on", what) for key in grouped}


def describe(rows: list[Row]) -> str:
    """Return what the runs of one program took, as medians."""
    names = (*TAKEN, "env_steps", "updates", "import_seconds", "build_seconds")
    middle = {name: statistics.median(float(row[name]) for row in rows) for name in names}
    finals = [float(row["final"]) for row in rows if row["final"] != ""]
    reached = [bool(row["reached"]) for row in rows if row["reached"] != ""]
    texts = [
        f"{rows[0]['program']}, flags {rows[0]['flags']}: {middle['seconds']:.1f} s",
        f"{middle['cpu_seconds']:.1f} s CPU",
        f"{middle['env_steps'] / middle['seconds']:.0f} env steps/s",
        f"{middle['updates'] / middle['seconds']:.0f} updates/s",
        f"{middle[MEMORY]:.0f} MB",
        f"imports {middle['import_seconds']:.1f} s, building {middle['build_seconds']:.1f} s",
        f"final {statistics.median(finals):.1f}" if finals else "",
        f"threshold reached {sum(reached)} of {len(reached)} times" if reached else "",
    ]
    return ", ".join(text for text in texts if text)


def draw(found: dict[Key, list[float]], title: str) -> Figure:
    """Return a figure of ratios: a bar to the median, a dot for each repeat.

    Args:
        found: Ratios to us as we come, by program.
        title: Of the axis.
    """
    figure = Figure(figsize=(7.0, 0.8 + 0.32 * len(found)), layout="constrained")
    panel = figure.add_subplot()
    labels = [f"{program}{'' if flags == 'on' else ', no flags'}" for program, flags in found]
    for place, ((program, flags), times) in enumerate(found.items()):
        finite = [time for time in times if math.isfinite(time)]
        middle = statistics.median(times) if times else math.inf
        panel.plot(finite, [place] * len(finite), ".", color=INK, ms=4)
        if not math.isfinite(middle):
            text = f"threshold reached {len(finite)} of {len(times)} times"
            panel.text(0.02, place, text, va="center", color=MUTED, fontsize=8)
            continue
        colour = COLOURS[0] if program.startswith(OURS) else COLOURS[1]
        alpha = 1.0 if flags == "on" else 0.5
        panel.barh(place, middle, color=colour, alpha=alpha, height=0.7)
    panel.axvline(1.0, color=INK, lw=0.8)
    panel.set_yticks(range(len(labels)), labels, fontsize=8)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel(title, fontsize=9)
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
    parser.add_argument("--draw", choices=TAKEN, help="of what the picture is")
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
    writer, failed = None, False
    with path.open("w", newline="", buffering=1) as file:
        file.write(f"# python {shlex.join(sys.argv)}\n")
        for repeat in range(given.repeats):
            # A program that always came first would find the machine as it was left.
            first = repeat * len(given.flags) % len(keys)
            for program, flags in [*keys[first:], *keys[:first]]:
                python = pythons.get(program, sys.executable)
                seed = given.first_seed + repeat
                try:
                    row = one_run(python, program, given.work, flags, seed, given.set)
                except RuntimeError as error:
                    failed = True
                    print(error)
                    continue
                rounded = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}
                if writer is None:
                    writer = csv.DictWriter(file, list(rounded))
                    writer.writeheader()
                writer.writerow(rounded)
                print(yaml.safe_dump(rounded, default_flow_style=True, width=1000).strip())
    # A work of memory says so in its name.
    what = given.draw or (MEMORY if given.work.endswith("memory") else "seconds")
    title = f"{given.work.replace('_', ' ')}: {what.replace('_', ' ')} over those of lit-mtdqn"
    draw(summarise(read(path), what), title).savefig(path.with_suffix(".png"), dpi=120)
    sys.exit(failed)


if __name__ == "__main__":
    main()
