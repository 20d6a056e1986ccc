"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lit_mtdqn.types.syncing import sync_folder


def unfinished(path: Path) -> Path:
    """Return where a file, or a folder, is written before it takes its name."""
    return path.with_name(f"{path.name}.new")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which takes its name when the block ends without an error.

    Until then, a crash of the process or of the machine included, what had the name before keeps
    it.

    Args:
        path: The file, replaced if it exists.
    """
    fresh = unfinished(path)
    try:
        yield fresh
        with fresh.open("rb+") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def cut_unfinished_line(file: BinaryIO) -> None:
    """Cut off a text file's last line where it has no end, as a killed process leaves it.

    Args:
        file: Open for reading and writing.
    """
    text = file.read()
    file.truncate(text.rfind(b"\n") + 1)
