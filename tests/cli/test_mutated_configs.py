"""Shipped configurations with a mistake in each: they run, or one line says what is wrong."""

from __future__ import annotations

import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.mutations import Mutation, mutated

from lit_mtdqn import RolloutDataModule
from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli import main
from lit_mtdqn.cli.main import RunCLI

FAST, PIECE, PIECES = 30, 50, 20
LONGEST = 20.0  # s of CPU that a case may take
MOST_MEMORY = 2**34  # bytes, for numbers that ask for more than there is
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]


class _EndlessError(BaseException):
    """A case that does not come to an end."""


@contextmanager
def _limits() -> Iterator[None]:
    """Bound the time and the memory of a case."""

    def stop(*_: Any) -> None:
        raise _EndlessError

    handler = signal.signal(signal.SIGPROF, stop)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, memory[1]))
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, memory)
        signal.signal(signal.SIGPROF, handler)


@pytest.fixture(autouse=True)
def _brief_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """End runs after three phases, however long they were told to be."""
    is_finished: Any = RolloutDataModule.is_finished
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    monkeypatch.setattr(
        RolloutDataModule,
        "is_finished",
        property(lambda data: is_finished.fget(data) or data.clock.phases >= 3),
    )


def _play(mutation: Mutation, folder: Path) -> tuple[int, str]:
    """Run a configuration; return the exit code and how it ended."""
    config = folder / "mutated.yaml"
    config.write_bytes(mutation.text)
    files = [*mutation.configs, config]
    arguments = [argument for file in files for argument in ("--config", str(file))]
    try:
        with _limits():
            main(["fit", *arguments, *QUIET, f"--run_dir={folder / 'run'}"])
    except SystemExit as stop:
        return int(stop.code or 0), str(stop)
    return 0, "ran"


def _check(seed: int, folder: Path) -> None:
    mutation = mutated(seed)
    folder.mkdir()
    code, said = _play(mutation, folder)
    what = f"seed {seed}, {mutation.says}: {said}"
    if code == 1:
        # Values that are none too large by themselves may be so together, or for a solver.
        assert "must be finite" in said or "must find a combination" in said, what
        assert (folder / "run").exists(), what
        return
    if code == 0:
        assert said == "ran", what
        assert not mutation.is_nonsense, what
        return
    assert code == 2, what
    assert "\n" not in said, what
    named = " ".join(re.findall(r"`([^`]+)`", said))
    assert "*" in mutation.names or any(name and name in named for name in mutation.names), what


@pytest.mark.filterwarnings("ignore")
def test_configurations_with_a_mistake_are_built_or_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunCLI, "_run_subcommand", lambda *_: None)
    for seed in range(FAST):
        _check(seed, tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("piece", range(PIECES))
def test_a_thousand_configurations_with_a_mistake(piece: int, tmp_path: Path) -> None:
    for seed in range(1000 + piece * PIECE, 1000 + (piece + 1) * PIECE):
        _check(seed, tmp_path / str(seed))


def test_a_mutation_follows_from_its_seed() -> None:
    assert mutated(7) == mutated(7)
    assert len({mutated(seed).text for seed in range(50)}) > 40
