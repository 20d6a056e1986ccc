"""A run that was stopped and goes on is, to the last bit, the run that was never stopped."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import pytest
import torch
from helpers.asserts import assert_equal_tensors
from helpers.counting_env import SINGLE
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lit_mtdqn import DQN, PQN, MultiTaskDQN, PolicyDistillation, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import GracefulStop, ReplayCheckpoint
from lit_mtdqn.cli.recording import CheckpointFiles, MetricsLogger, RunCheckpoint
from lit_mtdqn.data import SoftmaxTasks
from lit_mtdqn.networks import LinearHead, MLPTorso, QNetwork
from lit_mtdqn.replay import Prioritisation
from lit_mtdqn.scaling import ReturnNormaliser
from lit_mtdqn.types import Linear

PHASES = 16
PHASES_PER_EPOCH = 4
ACTIONS = 100
DRIVING = TaskSpec(
    env="lit_mtdqn/Pedestrian-v0",
    kwargs={"observation_noise": 0.1},
    gamma=0.9,
    n_step=3,
    time_limit=23,
    success_key="success",
    score_range=(-1.0, 2.0),
)
CONTEXTS = TaskSpec(
    env="lit_mtdqn/ContextualCartPole-v0",
    kwargs={"context": [{"length": 1.0}, {"gravity": 5.0}]},
    time_limit=11,
    score_range=(0.0, 11.0),
)
CARTPOLE = TaskSpec(env="CartPole-v1", n_step=2, time_limit=17, score_range=(0.0, 17.0))
GATHERING = TaskSpec(env="lit_mtdqn/Gathering-v0", n_step=2, time_limit=9, score_range=(0.0, 1.0))
# Four copies, five vector steps and two updates a phase.
DATA: dict[str, Any] = {
    "num_envs": 4,
    "replay_ratio": 0.1,
    "phase_vector_steps": 5,
    "batch_size": 10,
    "replay_capacity": 150,
    "warmup_env_steps": 30,
    "eval_episodes": 2,
    "eval_max_steps": 12,
    "seed": 5,
}
TORSO = partial(MLPTorso, hidden=[8], layer_norm=True)
NETWORK = partial(QNetwork, torso=TORSO)
# Draws from PyTorch's global generator.
NOISY = partial(QNetwork, torso=TORSO, head=partial(LinearHead, noisy_sigma=0.5))


class Teacher:
    """Prefers actions by a fixed function of the observation."""

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(observation.shape[-1], 9, generator=generator)
        return (observation @ weight).sin()


def _dqn() -> tuple[RolloutDataModule, DQN]:
    data = _data({"driving": DRIVING}, prioritisation=Prioritisation(beta=Linear(0.4, 1.0, 40)))
    return data, DQN(data.task_infos, network=NOISY, learning_rate_schedule=Linear(1.0, 0.1, 40))


def _multitask() -> tuple[RolloutDataModule, MultiTaskDQN]:
    """PopArt, priorities, shares that follow scores, several steps: all that has a state."""
    data = _data(
        {"driving": DRIVING, "contexts": CONTEXTS, "cartpole": CARTPOLE, "gathering": GATHERING},
        prioritisation=Prioritisation(),
        sampler=SoftmaxTasks(steers="both"),
    )
    return data, MultiTaskDQN(data.task_infos, network=NETWORK)


def _distillation() -> tuple[RolloutDataModule, PolicyDistillation]:
    data = _data({"driving": DRIVING})
    model = PolicyDistillation(
        data.task_infos,
        network=NETWORK,
        teacher_share=Linear(1.0, 0.0, 40),
        labels="stored",
    )
    model.use_teachers({"driving": Teacher()})
    return data, model


def _pqn() -> tuple[RolloutDataModule, PQN]:
    tasks = {"contexts": CONTEXTS, "cartpole": TaskSpec(env="CartPole-v1", time_limit=17)}
    data = _data(tasks, keeps_replays=False, warmup_env_steps=0)
    return data, PQN(data.task_infos, network=NETWORK, scale=ReturnNormaliser)


ALGORITHMS: dict[str, Callable[[], tuple[RolloutDataModule, Any]]] = {
    "dqn": _dqn,
    "multitask": _multitask,
    "distillation": _distillation,
    "pqn": _pqn,
}


def _data(tasks: dict[str, TaskSpec], **options: Any) -> RolloutDataModule:
    updates = PHASES * 2
    every = PHASES_PER_EPOCH * DATA["num_envs"] * DATA["phase_vector_steps"] * len(tasks)
    limits = {"total_env_steps": None, "total_updates": updates, "evaluate_every_env_steps": every}
    return RolloutDataModule(tasks, **{**DATA, **limits, **options})


class Signalling(Callback):
    """Tells the run to end in a hook, when so many phases have been played."""

    def __init__(self, hook: str, phases: int, number: int = signal.SIGINT) -> None:
        self.phases, self.number = phases, number
        setattr(self, hook, self.tell)

    def tell(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.datamodule.clock.phases == self.phases:  # type: ignore[attr-defined]
            os.kill(os.getpid(), self.number)


class Run(NamedTuple):
    """What a run has come to."""

    data: RolloutDataModule
    model: Any
    trainer: lightning.Trainer
    folder: Path


def _run(folder: Path, name: str, *others: Callback, resumes: bool = False, **options: Any) -> Run:
    """Start a run in a folder, or go on with it, in a process that drew other numbers before."""
    torch.manual_seed(17 + resumes)
    random.seed(resumes)
    data, model = ALGORITHMS[name]()
    for key, value in options.items():
        setattr(data, key, value)
    checkpoints = folder / "checkpoints"
    callbacks = [
        *others,
        GracefulStop(),
        *([ReplayCheckpoint()] if data.keeps_replays else []),
        RunCheckpoint(checkpoints, "last", enable_version_counter=False, save_on_exception=True),
    ]
    trainer = lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=MetricsLogger(str(folder)),
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
        max_epochs=-1,
        log_every_n_steps=3,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    path = checkpoints / "last.ckpt" if resumes else None
    trainer.fit(model, data, ckpt_path=path, weights_only=True)
    return Run(data, model, trainer, folder)


def _stopped(
    folder: Path,
    name: str,
    phases: int,
    hook: str = "on_train_batch_start",
    number: int = signal.SIGINT,
) -> None:
    with pytest.raises((SystemExit, SIGTERMException)):
        _run(folder, name, Signalling(hook, phases, number))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Return what runs that were never stopped have come to."""
    known: dict[str, dict[str, Any]] = {}

    def of(name: str) -> dict[str, Any]:
        if name not in known:
            known[name] = _outcome(_run(tmp_path_factory.mktemp(name), name))
        return known[name]

    return of


def _outcome(run: Run) -> dict[str, Any]:
    """Return all that two runs may differ in, down to the next actions."""
    data, source = run.data, run.data.source
    assert source is not None
    found = {
        "clock": data.clock.state_dict(),
        "scores": data.scores.state_dict(),
        "sampler": data.sampler.state_dict(),
        "episodes": source.statistics.state_dict(),
        "weights": run.model.state_dict(),
        "optimizer": run.trainer.optimizers[0].state_dict()["state"],
        "replays": {slot.task: _rows(slot) for slot in data.slots if len(slot.replay)},
        "metrics": (run.folder / "metrics.csv").read_text(),
    }
    stream: Any = source._stream
    rows = [next(stream) for _ in range(ACTIONS)]
    return {
        **found,
        "actions": torch.from_numpy(np.stack([row.action for row in rows])),
        "rewards": torch.from_numpy(np.stack([row.reward for row in rows])),
        "drawn": {slot.task: slot.replay.sample(20) for slot in data.slots if len(slot.replay)},
    }


def _rows(slot: Any) -> dict[str, Tensor]:
    rows = dict(slot.replay._storage.get(slice(None)).items())
    if slot.replay.is_prioritised:
        rows["priority"] = slot.replay._sampler._priority
    return {name: column.clone() for name, column in rows.items()}


def _assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["metrics"] == expected["metrics"]
    assert_equal_tensors(found, expected)


# In the middle of an epoch, and at the end of one, before its evaluation.
@pytest.mark.parametrize("phases", [5, 8])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_goes_on_as_if_it_had_never_been_stopped(
    name: str, phases: int, whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    _stopped(tmp_path, name, phases)
    _assert_same(_outcome(_run(tmp_path, name, resumes=True)), whole(name))


@pytest.mark.slow
@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_may_be_stopped_after_any_phase(
    name: str, place: int, whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    phases = random.Random(name).sample(range(2, PHASES), 5)[place]
    number = (signal.SIGINT, signal.SIGTERM)[place % 2]
    _stopped(tmp_path, name, phases, number=number)
    _assert_same(_outcome(_run(tmp_path, name, resumes=True)), whole(name))


@pytest.mark.slow
def test_a_run_may_be_stopped_again_and_again(
    whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    _stopped(tmp_path, "multitask", 3)
    for phases in (6, 8, 11):
        with pytest.raises(SystemExit):
            _run(
                tmp_path,
                "multitask",
                Signalling("on_train_batch_start", phases),
                resumes=True,
            )
    _assert_same(_outcome(_run(tmp_path, "multitask", resumes=True)), whole("multitask"))


@pytest.mark.parametrize(
    ("hook", "number"),
    [("on_validation_batch_start", signal.SIGINT), ("on_validation_start", signal.SIGTERM)],
)
def test_an_evaluation_that_was_cut_off_is_made_anew(
    hook: str, number: int, whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    _stopped(tmp_path, "pqn", 8, hook, number)
    _assert_same(_outcome(_run(tmp_path, "pqn", resumes=True)), whole("pqn"))


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
            _run(folder, "dqn", resumes=True)


def test_a_run_that_was_killed_between_two_writes_has_the_replays_of_its_checkpoint(
    whole: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _stopped(tmp_path / "run", "dqn", 5)
    _killed(tmp_path / "run", tmp_path / "left", monkeypatch)
    _assert_same(_outcome(_run(tmp_path / "left", "dqn", resumes=True)), whole("dqn"))
    assert sorted(path.name for path in (tmp_path / "left" / "replay").iterdir()) == ["rank_0"]


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
    _stopped(tmp_path, "dqn", 5)
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
            _run(tmp_path, "dqn", Signalling("on_train_batch_start", 8), resumes=True)
        shutil.rmtree(replay)
        (tmp_path / "old").rename(replay)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    before = sum(saved["RolloutDataModule"]["clock"]["env_steps"].values())
    refill = Refill()
    with pytest.warns(UserWarning, match=f"No replay of driving goes on: .*{reason}"):
        run = _run(tmp_path, "dqn", refill, resumes=True)
    # Two vector steps of four copies were waiting for the n-step returns of the first played.
    assert 30 <= refill.rows <= refill.env_steps - before + 8 <= 60
    assert run.data.clock.updates == 2 * PHASES
    assert run.data.epsilon_of("driving") < 1.0


def test_environments_that_cannot_go_on_start_new_episodes_and_the_log_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counting = TaskSpec(env=SINGLE, n_step=3)

    def make() -> tuple[RolloutDataModule, DQN]:
        data = _data({"contexts": CONTEXTS, "counting": counting})
        return data, DQN(data.task_infos, network=NETWORK)

    monkeypatch.setitem(ALGORITHMS, "mixed", make)
    _stopped(tmp_path, "mixed", 5)
    with caplog.at_level("INFO"):
        run = _run(tmp_path, "mixed", resumes=True)
    (line,) = [one.getMessage() for one in caplog.records if "New episodes" in one.getMessage()]
    assert line.startswith("New episodes start in counting: their environments do not restore")
    rows = run.data.slots[1].replay._storage.get(slice(None))
    starts, ends = rows["observation"], rows["next_observation"]
    # Identity of the copy, number of its episode, step: no transition joins two episodes.
    assert torch.equal(starts[:, :2], ends[:, :2])
    assert set((ends - starts)[:, 2].tolist()) <= {1.0, 2.0, 3.0}
