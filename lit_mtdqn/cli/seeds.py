"""The same command for several seeds, one process and one folder each."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lit_mtdqn.cli.run_folder import stamped_run_dir
from lit_mtdqn.types import require


def split_seeds(argv: Sequence[str]) -> tuple[list[int], int, list[str]]:
    """Return the seeds, the number of parallel jobs, and the rest of a command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--seeds")
    parser.add_argument("--jobs", type=int, default=1)
    found, rest = parser.parse_known_args(list(argv))
    if found.seeds is None:
        return [], 1, list(argv)
    try:
        require(found.jobs >= 1, "jobs", "be at least 1", found.jobs)
        return parse_seeds(found.seeds), found.jobs, rest
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that `0..4` or `0,3,7` means, both ends included.

    Raises:
        ValueError: If it means none.
    """
    try:
        first, dots, last = text.partition("..")
        seeds = list(range(int(first), int(last) + 1)) if dots else list(map(int, text.split(",")))
    except ValueError:
        seeds = []
    require(bool(seeds), "seeds", "read like 0..4 or 0,3,7", text)
    return seeds


def run_seeds(argv: Sequence[str], seeds: Sequence[int], jobs: int) -> int:
    """Run the command once per seed, and return the first exit code that is not 0.

    Args:
        argv: The command line without seeds.
        seeds: Seeds.
        jobs: Runs at a time; with more than one, progress bars are off.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run_dir")
    found, rest = parser.parse_known_args(list(argv))
    base = Path(found.run_dir or stamped_run_dir(_configurations(rest)))
    quiet = ["--trainer.enable_progress_bar=false"] if jobs > 1 else []

    def run(seed: int) -> int:
        own = [f"--seed_everything={seed}", f"--run_dir={base / f'seed_{seed}'}"]
        command = [sys.executable, "-m", "lit_mtdqn", *rest, *own, *quiet]
        return subprocess.run(command, check=False).returncode

    with ThreadPoolExecutor(jobs) as pool:
        codes = list(pool.map(run, seeds))
    return next((code for code in codes if code != 0), 0)


def _configurations(argv: Sequence[str]) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-c", action="append", default=[])
    found, _ = parser.parse_known_args(list(argv))
    configurations: list[str] = found.config
    return configurations
