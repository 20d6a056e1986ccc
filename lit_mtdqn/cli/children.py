"""Commands in processes of their own, which end when this one is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

# What a shell reports of a command that Ctrl-C or SIGTERM has ended.
INTERRUPTED, TERMINATED = 130, 143


def exit_code_of(code: int) -> int:
    """Return the exit code of a command: 0, not this one, where a run of a sweep was told to end.

    Early termination is no failure. W&B's agent takes all above 0 for one and gives up after five
    (`wandb.wandb_agent.Agent.is_failing`), and a search takes the worst score for that of a failed
    run.
    """
    is_told = code in (INTERRUPTED, TERMINATED)
    return 0 if is_told and "WANDB_SWEEP_ID" in os.environ else code


class Children:
    """Runs commands of this package, in threads if need be, and passes SIGTERM on to them.

    Ctrl-C needs no passing on: a terminal tells all processes at once. To be used as a context.

    Args:
        environment: Environment of the processes; None for that of this one.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment
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
        command = [sys.executable, "-m", "lit_mtdqn", *arguments]
        process = subprocess.Popen(command, env=self._environment)
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
