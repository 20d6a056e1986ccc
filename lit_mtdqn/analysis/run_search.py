"""Where runs lie below a folder, and how their folders are named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lit_mtdqn.analysis.checkpoints import CHECKPOINTS

METRICS, CONFIG = "metrics.csv", "config.yaml"
# All that a run writes into its folder.
CONTENTS = (CONFIG, METRICS, CHECKPOINTS, "report", "replay", "wandb", "validate", "test")
# A seed, or the date and time at which the run began, with a number where several did.
_REPEAT = re.compile(r"seed_\d+|\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?")


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of all runs in a folder, itself and folders within a run's included.

    What a run has written into its folder is not searched, and neither is what is hidden.

    Args:
        folder: The folder, which need not exist.

    Returns:
        Folders that start with the given one, by their names; numbers in names count as numbers.
    """
    return list(_search(folder, set())) if folder.is_dir() else []


def is_repeat(folder: Path) -> bool:
    """Return whether a run's folder is named as one of several of a kind: by seed or by date."""
    return _REPEAT.fullmatch(folder.resolve().name) is not None


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run."""
    return (folder / METRICS).is_file()


def run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that a checkpoint lies in; None where there is none."""
    return next((f for f in checkpoint.resolve().parents[1:3] if (f / CONFIG).is_file()), None)


def _search(folder: Path, seen: set[Path]) -> Iterator[Path]:
    if folder.resolve() in seen:  # a link may lead back
        return
    seen.add(folder.resolve())
    skipped: tuple[str, ...] = ()
    if is_run(folder):
        skipped = CONTENTS
        yield folder
    for path in sorted(folder.iterdir(), key=_with_numbers):
        if path.is_dir() and path.name not in skipped and not path.name.startswith("."):
            yield from _search(path, seen)


def _with_numbers(path: Path) -> tuple[tuple[int, str], ...]:
    """Return what sorts names in which numbers count as numbers."""
    parts = re.findall(r"\d+|\D+", path.name)
    return tuple((int(part) if part.isdecimal() else -1, part) for part in parts)
