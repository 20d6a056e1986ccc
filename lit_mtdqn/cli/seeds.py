"""The same command for several seeds, one process and one folder each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from lit_mtdqn.cli.children import Children
from lit_mtdqn.cli.seed_scores import SeedScores, environment_of_seeds
from lit_mtdqn.loggers import WandbRun
from lit_mtdqn.types import require

SCORE_INTERVAL = 2.0  # s


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


def run_seeds(
    argv: Sequence[str],
    seeds: Sequence[int],
    run_dir: str,
    jobs: int,
    logger: WandbRun | None = None,
) -> int:
    """Run the command once per seed, and return the first exit code that is not 0.

    Args:
        argv: The command line; what is added at its end overrides its own seeds and folder.
        seeds: Seeds.
        run_dir: Folder of all runs; each gets a folder `seed_<n>` in it.
        jobs: Runs at a time; with more than one, progress bars are off.
        logger: Takes the interquartile mean of all seeds' scores as `val/score/iqm`; None logs
            single seeds only.

    Raises:
        ValueError: If `jobs` is below 1.
    """
    require(jobs >= 1, "jobs", "be at least 1", jobs)
    quiet = ["--trainer.enable_progress_bar=false"] if jobs > 1 else []

    folders = [Path(run_dir) / f"seed_{seed}" for seed in seeds]
    scores = None if logger is None else SeedScores(folders, logger)
    environment = None if logger is None else environment_of_seeds(logger)

    def run(seed: int, folder: Path) -> int:
        own = ["--seeds=null", f"--seed_everything={seed}", f"--run_dir={folder}"]
        return children.run([*argv, *own, *quiet])

    with Children(environment) as children, ThreadPoolExecutor(jobs) as pool:
        runs = [pool.submit(run, *one) for one in zip(seeds, folders, strict=True)]
        while scores is not None and wait(runs, SCORE_INTERVAL).not_done:
            scores.log()
    if scores is not None:
        scores.log()
    return next((code.result() for code in runs if code.result() != 0), 0)
