"""Folders by names that are as short as can be told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path


def short_names(folders: Mapping[Path, int], taken: Collection[str] = ()) -> dict[Path, str]:
    """Return a name of each folder: its last parts, as few as no other folder ends with.

    Args:
        folders: Absolute folders, each with how many parts its name has at least.
        taken: Names that none may have.
    """
    return {folder: _name(folder, least, folders, taken) for folder, least in folders.items()}


def _name(folder: Path, least: int, others: Collection[Path], taken: Collection[str]) -> str:
    for length in range(least, len(folder.parts)):
        name = _end(folder, length)
        if name not in taken and Counter(_end(other, length) for other in others)[name] == 1:
            return name
    return folder.as_posix()


def _end(folder: Path, length: int) -> str:
    return "/".join(folder.parts[-length:])
