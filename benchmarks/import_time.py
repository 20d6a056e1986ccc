"""How many seconds `import lit_mtdqn` takes beyond the packages that it is built on.

    python benchmarks/import_time.py

imports PyTorch, torchrl, Lightning and Gymnasium and then this package, in fresh processes, and
writes `benchmarks/results/import_time.csv`: a row per process with the seconds of both.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "import_time.csv"
CODE = """
import time
started = time.perf_counter()
import torch, tensordict, torchrl.data, lightning, gymnasium
between = time.perf_counter()
import lit_mtdqn
print(between - started, time.perf_counter() - between)
"""


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    rows = []
    for repeat in range(parser.parse_args().repeats):
        command = [sys.executable, "-c", CODE]
        output = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
        packages, own = map(float, output.split())
        rows.append((repeat, f"{packages:.3f}", f"{own:.3f}"))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        file.write(f"# python {shlex.join(sys.argv)}\n")
        writer = csv.writer(file)
        writer.writerow(["repeat", "packages_seconds", "own_seconds"])
        writer.writerows(rows)
    own_seconds = [float(row[-1]) for row in rows]
    low, high = min(own_seconds), max(own_seconds)
    print(f"median {statistics.median(own_seconds):.3f} s, {low:.3f} to {high:.3f} s")


if __name__ == "__main__":
    main()
