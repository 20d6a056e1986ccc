"""The same command for several seeds, one process and one folder each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lit_mtdqn.cli.children import Children
from lit_mtdqn.types import require


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


def run_seeds(argv: Sequence[str], seeds: Sequence[int], run_dir: str, jobs: int) -> int:
    """Run the command once per seed, and return the first exit code that is not 0.

    Args:
        argv: The command line; what is added at its end overrides its own seeds and folder.
        seeds: Seeds.
        run_dir: Folder of all runs; each gets a folder `seed_<n>` in it.
        jobs: Runs at a time; with more than one, progress bars are off.

    Raises:
        ValueError: If `jobs` is below 1.
    """
    require(jobs >= 1, "jobs", "be at least 1", jobs)
    quiet = ["--trainer.enable_progress_bar=false"] if jobs > 1 else []

    def run(seed: int) -> int:
        folder = Path(run_dir) / f"seed_{seed}"
        own = ["--seeds=null", f"--seed_everything={seed}", f"--run_dir={folder}"]
        return children.run([*argv, *own, *quiet])

    with Children() as children, ThreadPoolExecutor(jobs) as pool:
        codes = list(pool.map(run, seeds))
    return next((code for code in codes if code != 0), 0)
