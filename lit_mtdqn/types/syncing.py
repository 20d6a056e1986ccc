"""Files and names that outlive a crash of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Let names that were given in a folder outlive a crash of the machine."""
    if os.name == "nt":  # Windows opens no folders, and keeps names by itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Let a folder and all that lies in it, folders in it too, outlive a crash of the machine."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        else:
            # Windows flushes nothing that is open for reading alone.
            with path.open("rb+") as file:
                os.fsync(file.fileno())
