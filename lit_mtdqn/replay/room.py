"""Room on a disk, taken before what is mapped into memory is written there."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How PyTorch tells of a file that was cut off while it was written.
CUT_OFF = "unexpected pos"


def reserve(sizes: Mapping[Path, int]) -> None:
    """Make files that have their place on the disk.

    A mapped file has none until its pages are written, and a page without room ends the process by
    SIGBUS, which nothing can catch.

    Args:
        sizes: Bytes of each file.

    Raises:
        OSError: If there is no room for them.
    """
    for path, size in sizes.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            if size > 0 and hasattr(os, "posix_fallocate"):  # macOS and Windows have none
                _allocate(file.fileno(), size)


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # Not every file system can do so.
        if error.errno in NO_ROOM:
            raise


def is_out_of_room(error: BaseException) -> bool:
    """Return whether something was not written because there was no room for it."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    signs = (CUT_OFF, *map(os.strerror, NO_ROOM))
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
