"""Commands on a terminal, where nobody answers."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_on_terminal(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], limit: float
) -> tuple[int | None, str]:
    """Return exit code, None if it has not ended within so many seconds, and output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    output, end = b"", time.monotonic() + limit
    try:
        while select.select([ours], [], [], max(0.0, end - time.monotonic()))[0]:
            output += os.read(ours, 4096)
    except OSError:  # How Linux says that nobody writes any more.
        pass
    finally:
        os.close(ours)
    try:
        code = process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = None
    return code, output.decode()
