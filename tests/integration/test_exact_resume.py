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
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_mtdqn import DQN, PQN, MultiTaskDQN, PolicyDistillation, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import GracefulStop, ReplayCheckpoint
from lit_mtdqn.cli.recording import CheckpointFiles, MetricsLogger, RunCheckpoint
from lit_mtdqn.data import SoftmaxTasks
from lit_mtdqn.networks import LinearHead, MLPTorso, QNetwork
from lit_mtdqn.replay import Prioritisation
from lit_mtdqn.scaling import ReturnNormaliser
from lit_mtdqn.types import Linear

PHASES = 24
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
GATHERING = TaskSpec(
    env="lit_mtdqn/Gathering-v0", n_step=2, time_limit=9, score_range=(0.0, 1.0)
)
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


class Pressing(Callback):
    """Presses Ctrl-C in a hook, when so many phases have been played."""

    def __init__(self, hook: str, phases: int) -> None:
        self.phases = phases
        setattr(self, hook, self.press)

    def press(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.datamodule.clock.phases == self.phases:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGINT)


class Run(NamedTuple):
    """What a run has come to."""

    data: RolloutDataModule
    model: Any
    trainer: lightning.Trainer
    folder: Path


def _run(
    folder: Path, name: str, *others: Callback, resumes: bool = False, **options: Any
) -> Run:
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


def _stopped(folder: Path, name: str, phases: int, hook: str = "on_train_batch_start") -> None:
    with pytest.raises(SystemExit):
        _run(folder, name, Pressing(hook, phases))


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


# In the middle of an epoch, and at the end of one.
@pytest.mark.parametrize("phases", [6, 12])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_goes_on_as_if_it_had_never_been_stopped(
    name: str, phases: int, whole: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    _stopped(tmp_path, name, phases)
    _assert_same(_outcome(_run(tmp_path, name, resumes=True)), whole(name))
