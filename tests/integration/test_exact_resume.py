"""A run that was stopped and goes on is, to the last bit, the run that was never stopped."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from helpers.counting_env import SINGLE
from helpers.stopped_runs import (
    ALGORITHMS,
    CONTEXTS,
    NETWORK,
    PHASES,
    PHASES_PER_EPOCH,
    Signalling,
    assert_same,
    data_of,
    outcome_of,
    run_in,
    stop_in,
)
from lightning.pytorch.callbacks import Callback, Timer

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.cli.recording import CheckpointFiles


# In the middle of an epoch, and at the end of one, before its evaluation.
@pytest.mark.parametrize("phases", [5, 8])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_goes_on_as_if_it_had_never_been_stopped(
    name: str, phases: int, whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    stop_in(tmp_path, name, phases)
    assert_same(outcome_of(run_in(tmp_path, name, resumes=True)), whole(name))


@pytest.mark.slow
@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_may_be_stopped_after_any_phase(
    name: str, place: int, whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    phases = random.Random(name).sample(range(2, PHASES), 5)[place]
    number = (signal.SIGINT, signal.SIGTERM)[place % 2]
    stop_in(tmp_path, name, phases, number=number)
    assert_same(outcome_of(run_in(tmp_path, name, resumes=True)), whole(name))


@pytest.mark.slow
def test_a_run_may_be_stopped_again_and_again(
    whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    stop_in(tmp_path, "multitask", 3)
    for phases in (6, 8, 11):
        with pytest.raises(SystemExit):
            run_in(
                tmp_path,
                "multitask",
                Signalling("on_train_batch_start", phases),
                resumes=True,
            )
    assert_same(outcome_of(run_in(tmp_path, "multitask", resumes=True)), whole("multitask"))


@pytest.mark.parametrize("hook", ["on_validation_start", "on_validation_batch_start"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_evaluation_that_was_cut_off_is_made_anew(
    hook: str, number: int, whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    stop_in(tmp_path, "pqn", 8, hook, number)
    assert_same(outcome_of(run_in(tmp_path, "pqn", resumes=True)), whole("pqn"))


class Aborting(Callback):
    """Aborts a run in the middle of its sixth phase: by two presses of Ctrl-C, or an error."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_update_end(self, trainer: lightning.Trainer, learner: Any, clock: Any) -> None:
        # The first of its two updates.
        if clock.updates == 11 and self.how == "between updates":
            self.press_twice()

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if _clock(trainer).phases == 6 and self.how == "before updates":
            self.press_twice()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        # The row of metrics is written after this.
        if _clock(trainer).phases == 6 and self.how == "after updates":
            raise KeyboardInterrupt

    def press_twice(self) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)


def _clock(trainer: lightning.Trainer) -> Any:
    return trainer.datamodule.clock  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["before updates", "between updates", "after updates"])
@pytest.mark.parametrize("name", ["dqn", "pqn"])
def test_a_run_that_is_aborted_in_the_middle_of_a_phase_goes_on_from_the_checkpoint_before(
    how: str, name: str, whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        run_in(tmp_path, name, Aborting(how))
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["RolloutDataModule"]["clock"]["phases"] == PHASES_PER_EPOCH
    assert_same(outcome_of(run_in(tmp_path, name, resumes=True)), whole(name))


class Killed(BaseException):
    """Nothing of a killed process runs on."""


def _killed(folder: Path, as_it_was: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume a run that is killed when the replays of its next checkpoint are written, only."""

    def kill(*_: Any, **__: Any) -> None:
        if not as_it_was.is_dir():
            shutil.copytree(folder, as_it_was)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "save_checkpoint", kill)
        with pytest.raises(Killed):
            run_in(folder, "dqn", resumes=True)


def test_a_run_that_was_killed_between_two_writes_has_the_replays_of_its_checkpoint(
    whole: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_in(tmp_path / "run", "dqn", 5)
    _killed(tmp_path / "run", tmp_path / "left", monkeypatch)
    assert_same(outcome_of(run_in(tmp_path / "left", "dqn", resumes=True)), whole("dqn"))
    assert sorted(path.name for path in (tmp_path / "left" / "replay").iterdir()) == ["rank_0"]


@pytest.mark.parametrize("name", ["pqn", "dqn"])
def test_a_run_whose_time_is_up_goes_on_with_more_of_it(
    name: str,
    whole: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time", clock)
    first = run_in(tmp_path, name, Timer(timedelta(seconds=7)))
    assert 0 < first.data.clock.phases < PHASES
    # The stop is after the middle of an epoch, and evaluated nevertheless.
    assert first.data.clock.phases % PHASES_PER_EPOCH != 0
    assert "val/score/mean" in first.trainer.callback_metrics
    timer = Timer(timedelta(seconds=1000))
    run = run_in(tmp_path, name, timer, resumes=True)
    assert timer.time_elapsed() > PHASES
    # That evaluation has a row more.
    found, expected = ({**outcome, "metrics": ""} for outcome in (outcome_of(run), whole(name)))
    assert_same(found, expected)


class Refill(Callback):
    """Notes how full the replay is when updates begin, and how much has been played."""

    rows, env_steps = 0, 0

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not self.rows:
            self.rows, self.env_steps = len(data.slots[0].replay), data.clock.total_env_steps


@pytest.mark.parametrize("lost", ["all", "of another checkpoint", "damaged"])
def test_without_its_replays_a_run_plays_its_warm_up_again_with_what_it_has_learned(
    lost: str, tmp_path: Path
) -> None:
    stop_in(tmp_path, "dqn", 5)
    replay, reason = tmp_path / "replay" / "rank_0", "holds none"
    if lost == "all":
        shutil.rmtree(replay)
    elif lost == "damaged":
        reason = "must be undamaged files"
        next(replay.rglob("action.memmap")).write_bytes(b"nothing")
    else:
        reason = "is of update 10, the checkpoint of update 16"
        shutil.copytree(replay, tmp_path / "old")
        with pytest.raises(SystemExit):
            run_in(tmp_path, "dqn", Signalling("on_train_batch_start", 8), resumes=True)
        shutil.rmtree(replay)
        (tmp_path / "old").rename(replay)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    before = sum(saved["RolloutDataModule"]["clock"]["env_steps"].values())
    refill = Refill()
    with pytest.warns(UserWarning, match=f"No replay of driving goes on: .*{reason}"):
        run = run_in(tmp_path, "dqn", refill, resumes=True)
    # Two vector steps of four copies were waiting for the n-step returns of the first played.
    assert 30 <= refill.rows <= refill.env_steps - before + 8 <= 60
    assert run.data.clock.updates == 2 * PHASES
    assert run.data.epsilon_of("driving") < 1.0


def test_environments_that_cannot_go_on_start_new_episodes_and_the_log_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counting = TaskSpec(env=SINGLE, n_step=3)

    def make() -> tuple[RolloutDataModule, DQN]:
        data = data_of({"contexts": CONTEXTS, "counting": counting})
        return data, DQN(data.task_infos, network=NETWORK)

    monkeypatch.setitem(ALGORITHMS, "mixed", make)
    stop_in(tmp_path, "mixed", 5)
    with caplog.at_level("INFO"):
        run = run_in(tmp_path, "mixed", resumes=True)
    (line,) = [one.getMessage() for one in caplog.records if "New episodes" in one.getMessage()]
    assert line.startswith("New episodes start in counting: their environments do not restore")
    rows = run.data.slots[1].replay._storage.get(slice(None))
    starts, ends = rows["observation"], rows["next_observation"]
    # Identity of the copy, number of its episode, step: no transition joins two episodes.
    assert torch.equal(starts[:, :2], ends[:, :2])
    assert set((ends - starts)[:, 2].tolist()) <= {1.0, 2.0, 3.0}
