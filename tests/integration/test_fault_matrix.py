"""Faults of `docs/faults.md` at random moments of real runs: none is silent, nothing is lost."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.failing_env import FAILING
from helpers.stopped_runs import (
    ALGORITHMS,
    CONTEXTS,
    NETWORK,
    PHASES,
    Signalling,
    assert_same,
    data_of,
    outcome_of,
    run_in,
    stop_in,
)
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils._pytree import tree_leaves

from lit_mtdqn import MultiTaskDQN, RolloutDataModule, TaskSpec
from lit_mtdqn.analysis.checkpoints import previous_checkpoint, whole_checkpoint
from lit_mtdqn.cli.errors import complaint_of

Whole = Callable[[str], dict[str, Any]]
SLOW = pytest.mark.slow
MOMENTS = 5
# Gymnasium tells of a failed process by warnings, with its traceback.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*ERROR. (Received the following|\\n?Traceback|Raising)"
)


def _draw(*cell: object) -> random.Random:
    return random.Random(repr(cell))


def _moments(first: int = 1) -> list[Any]:
    """Return the moments of a cell; all but the first few are slow."""
    return [pytest.param(n, marks=[SLOW] if n >= first else []) for n in range(MOMENTS)]


# What a run without restarts says of a fault of an environment.
SAID = {
    "raise": "wheel number 3",
    "exit": "maze",
    "nan": r"`next_observation` of task maze must be finite\. Got nan from its environment \d ",
    "reward": r"`reward` of task maze must be finite\. Got inf from its environment \d ",
    "shape": "shape",
    "kind": "complex",
}
IN_PROCESSES = ("exit", "hang")


def _maze(monkeypatch: pytest.MonkeyPatch, how: str, after: int, restarts: int) -> str:
    """Make the algorithm of a sound task and of one that fails after so many steps of a copy."""
    in_processes = how in IN_PROCESSES
    parent = os.getpid() if in_processes else 0
    maze = TaskSpec(
        env=FAILING,
        kwargs={"how": how, "when": "step", "only_in": None, "parent": parent, "after": after},
        backend="async" if in_processes else "sync",
        restarts=restarts,
        step_timeout=5.0 if how == "hang" else None,
        evaluates=False,
    )

    def make() -> tuple[RolloutDataModule, MultiTaskDQN]:
        data = data_of({"contexts": CONTEXTS, "maze": maze})
        return data, MultiTaskDQN(data.task_infos, network=NETWORK)

    monkeypatch.setitem(ALGORITHMS, "maze", make)
    monkeypatch.setattr("lit_mtdqn.envs.restarting.FIRST_WAIT", 0.0)
    return "maze"


def _assert_sound(folder: Path) -> int:
    """Assert that the last checkpoint is whole and of numbers; return its updates."""
    path = whole_checkpoint(folder / "checkpoints" / "last.ckpt", "checkpoint")
    saved = torch.load(path, weights_only=True)
    weights = [leaf for leaf in tree_leaves(saved["state_dict"]) if isinstance(leaf, torch.Tensor)]
    assert all(bool(weight.isfinite().all()) for weight in weights)
    updates: int = saved["RolloutDataModule"]["clock"]["updates"]
    return updates


# Of some 60 steps of a copy; the first checkpoint comes before the 25th.
@pytest.mark.parametrize("moment", _moments())
@pytest.mark.parametrize(
    "how",
    [
        "raise",
        "nan",
        *(pytest.param(how, marks=SLOW) for how in ("shape", "kind", "reward", "exit")),
    ],
)
def test_a_fault_of_an_environment_ends_a_run_that_goes_on_when_it_is_mended(
    how: str, moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = _maze(monkeypatch, how, _draw(how, moment).randint(30, 45), restarts=0)
    with pytest.raises(Exception, match=re.compile(SAID[how], re.DOTALL)) as raised:
        run_in(tmp_path, name)
    assert "maze" in "\n".join([str(raised.value), *getattr(raised.value, "__notes__", [])])
    assert (tmp_path / "non_finite_steps.pt").is_file() == (how in ("nan", "reward"))
    assert 0 < _assert_sound(tmp_path) < 2 * PHASES
    run_in(tmp_path, _maze(monkeypatch, how, 10**6, restarts=0), resumes=True)
    assert _assert_sound(tmp_path) == 2 * PHASES


@pytest.mark.parametrize("moment", _moments())
@pytest.mark.parametrize(
    "how",
    ["raise", *(pytest.param(h, marks=SLOW) for h in ("nan", "shape", "kind", "reward", "exit"))],
)
def test_a_task_with_restarts_survives_faults_of_its_environments(
    how: str, moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(tmp_path, _maze(monkeypatch, how, _draw(how, moment).randint(5, 45), restarts=1000))
    _assert_survived(tmp_path)


@SLOW
def test_a_task_with_restarts_survives_an_environment_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(tmp_path, _maze(monkeypatch, "hang", _draw("hang").randint(35, 45), restarts=1000))
    _assert_survived(tmp_path)


def _assert_survived(folder: Path) -> None:
    assert _assert_sound(folder) == 2 * PHASES
    assert not list(folder.glob("non_finite_*.pt"))
    header, *rows = (folder / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("rollout/restarts/maze")
    counts = [float(row.split(",")[column] or 0.0) for row in rows]
    assert max(counts) >= 1.0


HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_validation_end")


@SLOW
@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_signal_at_any_moment_leaves_a_run_that_goes_on_as_if_there_had_been_none(
    name: str, number: signal.Signals, moment: int, whole: Whole, tmp_path: Path
) -> None:
    draw = _draw(name, number, moment)
    hook = draw.choice(HOOKS)
    # Evaluations come after every fourth phase.
    phases = draw.choice((4, 8, 12)) if "validation" in hook else draw.randrange(2, PHASES)
    with pytest.raises((SystemExit, SIGTERMException)):
        run_in(tmp_path, name, Signalling(hook, phases, number))
    assert_same(outcome_of(run_in(tmp_path, name, resumes=True)), whole(name))


class FullDisk:
    """A disk that is full from the n-th write on: what is written then is cut off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, writes: int | None = None) -> None:
        self.made = 0
        flush, write = os.fsync, Path.write_bytes

        def is_full(self: FullDisk = self) -> bool:
            self.made += 1
            return writes is not None and self.made > writes

        def told_flush(descriptor: int) -> None:
            if is_full():
                raise OSError(errno.ENOSPC, "No space left on device")
            flush(descriptor)

        def told_write(path: Path, content: Any) -> int:
            if is_full():
                write(path, bytes(content)[: len(content) // 2])
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return write(path, content)

        monkeypatch.setattr(os, "fsync", told_flush)
        monkeypatch.setattr(Path, "write_bytes", told_write)


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], int]:
    """Return how often runs that were never stopped write."""
    known: dict[str, int] = {}

    def of(name: str) -> int:
        if name not in known:
            with pytest.MonkeyPatch.context() as patch:
                disk = FullDisk(patch)
                run_in(tmp_path_factory.mktemp("writes"), name)
            known[name] = disk.made
        return known[name]

    return of


# Replays without room cost a warning, and the checkpoint that follows them ends the run; to save it
# once more is tried then.
@pytest.mark.filterwarnings("ignore:Replays are not written to")
@pytest.mark.filterwarnings("ignore:What was learned last is not saved")
@pytest.mark.parametrize("moment", _moments())
@pytest.mark.parametrize("name", ["pqn", pytest.param("dqn", marks=SLOW)])
def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_room(
    name: str,
    moment: int,
    whole: Whole,
    writes: Callable[[str], int],
    tmp_path: Path,
) -> None:
    # The last write gives the last checkpoint its name: the run is over, and does not go on.
    number = _draw(name, moment).randrange(writes(name) - 1)
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, number)
        with pytest.raises(OSError, match="No space") as raised:
            run_in(tmp_path, name)
    assert "room for what a run leaves" in (complaint_of(raised.value) or "")
    found = (tmp_path / "checkpoints" / "last.ckpt").exists()
    # A command starts no second run in a folder that holds one.
    folder = tmp_path if found else tmp_path / "anew"
    assert_same(outcome_of(run_in(folder, name, resumes=found)), whole(name))


def _damage(path: Path, draw: random.Random) -> str:
    """Cut a file off, or flip one of its bits; return which."""
    content = bytearray(path.read_bytes())
    place, how = draw.randrange(len(content)), draw.choice(["cut", "flip"])
    if how == "cut":
        del content[place:]
    else:
        content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return how


# Replays without room cost a warning, and the checkpoint that follows them ends the run.
@pytest.mark.filterwarnings("ignore:Replays are not written to")
@pytest.mark.parametrize("moment", _moments())
@pytest.mark.parametrize("name", ["pqn", pytest.param("dqn", marks=SLOW)])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    name: str, moment: int, whole: Whole, tmp_path: Path
) -> None:
    draw = _draw(name, moment)
    stop_in(tmp_path, name, draw.randrange(5, PHASES))
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert previous_checkpoint(last).is_file()
    how = _damage(last, draw)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run = run_in(tmp_path, name, resumes=True)
    said = "\n".join(str(warning.message) for warning in told)
    is_noticed = "the checkpoint before it" in said
    # Between the entries of the archive there is padding, of which nothing is read.
    assert is_noticed or how == "flip"
    # The checkpoint before has replays of its own.
    assert "No replay" not in said
    assert run.data.clock.updates == 2 * PHASES
    assert_same(outcome_of(run), whole(name))


@SLOW
@pytest.mark.parametrize("moment", range(2 * MOMENTS))
@pytest.mark.parametrize("is_lost", [True, False])
def test_a_replay_of_which_any_file_is_lost_or_damaged_is_not_read(
    is_lost: bool, moment: int, tmp_path: Path
) -> None:
    draw = _draw(is_lost, moment)
    stop_in(tmp_path, "dqn", draw.randrange(2, PHASES))
    # Beside it may lie the replay of the checkpoint before, which is not read here.
    folder = tmp_path / "replay" / "rank_0"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chosen = draw.choice(files)
    if is_lost:
        chosen.unlink()
    else:
        _damage(chosen, draw)
    with pytest.warns(UserWarning, match="No replay of driving goes on"):
        run = run_in(tmp_path, "dqn", resumes=True)
    assert run.data.clock.updates == 2 * PHASES
    assert _assert_sound(tmp_path) == 2 * PHASES


@pytest.mark.parametrize("moment", _moments())
def test_a_line_of_metrics_that_was_cut_off_is_written_again(
    moment: int, whole: Whole, tmp_path: Path
) -> None:
    draw = _draw(moment)
    stop_in(tmp_path, "pqn", draw.randrange(5, PHASES))
    table = tmp_path / "metrics.csv"
    line = table.read_bytes().splitlines()[-1]
    with table.open("ab") as file:
        file.write(line[: draw.randrange(1, len(line))])
    assert_same(outcome_of(run_in(tmp_path, "pqn", resumes=True)), whole("pqn"))
