"""Folders that take the place of others as a whole, and the checksums of what they hold."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lit_mtdqn.types.syncing import sync_folder

CHECKED_AT_ONCE = 2**24  # bytes


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to write to, which takes a path when the block ends without an error.

    What was there is set aside; an error leaves it, and nothing of the unfinished folder.

    Args:
        target: The path. What the block writes, it also syncs.
    """
    fresh = target.with_name(f"{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        _take_place(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def set_aside(target: Path) -> Path:
    """Return where a folder lies when another has taken its path."""
    # As it stands `.` has no name.
    target = target.absolute()
    return target.with_name(f"{target.name}.old")


def _take_place(fresh: Path, target: Path) -> None:
    if target.is_dir():
        old = set_aside(target)
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    fresh.rename(target)
    sync_folder(target.absolute().parent)


def complete_folder(folder: str | Path) -> Path:
    """Return a folder, or what was set aside from it where a process was killed just then."""
    path = Path(folder)
    aside = (set_aside(path), set_aside(path.parent) / path.name)
    return next((old for old in aside if old.is_dir() and not path.is_dir()), path)


def checksums(folder: Path) -> dict[str, int]:
    """Return the checksum of each file in a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def damaged_files(folder: Path, expected: Mapping[str, int]) -> list[str]:
    """Return the files that are missing or do not have their checksum."""
    return [
        name
        for name, checksum in expected.items()
        if not (folder / name).is_file() or _checksum(folder / name) != checksum
    ]


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while block := file.read(CHECKED_AT_ONCE):
            found = zlib.crc32(block, found)
    return found
