"""Commands in processes of their own, which end when this one is told to."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

# What a shell reports of a command that Ctrl-C or SIGTERM has ended.
INTERRUPTED, TERMINATED = 130, 143


class Children:
    """Runs commands of this package, in threads if need be, and passes SIGTERM on to them.

    Ctrl-C needs no passing on: a terminal tells all processes at once. To be used as a context.
    """

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._is_told = False
        self._previous: Any = None

    def __enter__(self) -> Children:
        """Take over the signal, where that is possible: in the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signal back."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command and return its exit code, as a shell would report it.

        Args:
            arguments: Those of `lit-mtdqn`.
        """
        if self._is_told:
            return TERMINATED
        process = subprocess.Popen([sys.executable, "-m", "lit_mtdqn", *arguments])
        self._running.append(process)
        if self._is_told:  # While it was started.
            process.terminate()
        code = _wait(process)
        self._running.remove(process)
        return TERMINATED if self._is_told else code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_told = True
        for process in list(self._running):
            process.terminate()


def _wait(process: subprocess.Popen[bytes]) -> int:
    interrupted = False
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            # The terminal tells the process, too, which ends after its phase.
            interrupted = True
        else:
            killed = 128 - code if code < 0 else code
            return INTERRUPTED if interrupted else killed
