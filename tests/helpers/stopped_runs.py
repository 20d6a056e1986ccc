"""Runs of every algorithm that are stopped, go on, and are compared with whole ones."""

from __future__ import annotations

import os
import random
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
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lit_mtdqn import DQN, PQN, MultiTaskDQN, PolicyDistillation, RolloutDataModule, TaskSpec
from lit_mtdqn.analysis.checkpoints import whole_checkpoint
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
    data = data_of({"driving": DRIVING}, prioritisation=Prioritisation(beta=Linear(0.4, 1.0, 40)))
    return data, DQN(data.task_infos, network=NOISY, learning_rate_schedule=Linear(1.0, 0.1, 40))


def _multitask() -> tuple[RolloutDataModule, MultiTaskDQN]:
    """PopArt, priorities, shares that follow scores, several steps: all that has a state."""
    data = data_of(
        {"driving": DRIVING, "contexts": CONTEXTS, "cartpole": CARTPOLE, "gathering": GATHERING},
        prioritisation=Prioritisation(),
        sampler=SoftmaxTasks(steers="both"),
    )
    return data, MultiTaskDQN(data.task_infos, network=NETWORK)


def _distillation() -> tuple[RolloutDataModule, PolicyDistillation]:
    data = data_of({"driving": DRIVING})
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
    data = data_of(tasks, keeps_replays=False, warmup_env_steps=0)
    return data, PQN(data.task_infos, network=NETWORK, scale=ReturnNormaliser)


ALGORITHMS: dict[str, Callable[[], tuple[RolloutDataModule, Any]]] = {
    "dqn": _dqn,
    "multitask": _multitask,
    "distillation": _distillation,
    "pqn": _pqn,
}


def data_of(tasks: dict[str, TaskSpec], **options: Any) -> RolloutDataModule:
    """Return data of tasks that are played for so many phases."""
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


def run_in(
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
    path = whole_checkpoint(checkpoints / "last.ckpt", "ckpt_path") if resumes else None
    trainer.fit(model, data, ckpt_path=path, weights_only=True)
    return Run(data, model, trainer, folder)


def stop_in(
    folder: Path,
    name: str,
    phases: int,
    hook: str = "on_train_batch_start",
    number: int = signal.SIGINT,
) -> None:
    """Start a run that is told to end."""
    with pytest.raises((SystemExit, SIGTERMException)):
        run_in(folder, name, Signalling(hook, phases, number))


def outcome_of(run: Run) -> dict[str, Any]:
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


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Assert that two outcomes are the same to the last bit."""
    assert found["metrics"] == expected["metrics"]
    assert_equal_tensors(found, expected)
