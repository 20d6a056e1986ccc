"""Processes that are told what this one is told, without a single process."""

import signal
import subprocess
from collections.abc import Callable

import pytest

from lit_mtdqn.cli.children import Children


def start(
    monkeypatch: pytest.MonkeyPatch, wait: Callable[[], int], begin: Callable[[], object] = int
) -> list[str]:
    """Let processes be made-up ones, and return what befalls them."""
    tape: list[str] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str] | None) -> None:
            assert command[1:3] == ["-m", "lit_mtdqn"]
            assert env is None
            tape.append(command[3])
            begin()

        def wait(self) -> int:
            return wait()

        def terminate(self) -> None:
            tape.append("terminated")

    monkeypatch.setattr(subprocess, "Popen", Process)
    return tape


def told() -> int:
    signal.raise_signal(signal.SIGTERM)
    return 1


def test_sigterm_ends_the_process_and_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    tape = start(monkeypatch, told)
    with Children() as children:
        assert children.run(["fit"]) == 143
        assert children.run(["fit"]) == 143
    assert tape == ["fit", "terminated"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_that_was_being_started_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tape = start(monkeypatch, lambda: 1, begin=told)
    with Children() as children:
        assert children.run(["fit"]) == 143
    assert tape == ["fit", "terminated"]


def test_ctrl_c_waits_for_the_process_and_is_reported_as_by_a_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[int] = []

    def wait() -> int:
        waits.append(1)
        if len(waits) == 1:
            raise KeyboardInterrupt
        return 1

    tape = start(monkeypatch, wait)
    with Children() as children:
        assert children.run(["fit"]) == 130
    assert (len(waits), tape) == (2, ["fit"])


@pytest.mark.parametrize(("code", "reported"), [(0, 0), (3, 3), (-9, 137)])
def test_exit_codes_are_those_of_a_shell(
    code: int, reported: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(monkeypatch, lambda: code)
    with Children() as children:
        assert children.run(["fit"]) == reported
