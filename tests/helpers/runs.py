"""Whole runs, small enough for a test."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning
from helpers.counting_env import VECTOR
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.networks import MLPTorso, QNetwork

NETWORK = partial(QNetwork, torso=partial(MLPTorso, hidden=[8]))
COUNTING = TaskSpec(env=VECTOR)
# One task, 2 environments, 4 vector steps and K = 2 updates a phase, an evaluation every 5 phases.
SMALL: dict[str, Any] = {
    "num_envs": 2,
    "replay_ratio": 0.25,
    "phase_vector_steps": 4,
    "batch_size": 4,
    "replay_capacity": 500,
    "warmup_env_steps": 10,
    "total_env_steps": 100,
    "evaluate_every_env_steps": 40,
    "eval_episodes": 3,
    "test_episodes": 5,
    "seed": 7,
}


def small_data(tasks: dict[str, TaskSpec] | None = None, **options: Any) -> RolloutDataModule:
    """Return a data module of the counting environment, or of other tasks."""
    return RolloutDataModule(tasks or {"count": COUNTING}, **{**SMALL, **options})


def small_model(data: RolloutDataModule, **options: Any) -> DQN:
    """Return a learner with a tiny network."""
    return DQN(data.task_infos, **{"network": NETWORK, **options})


def quiet_trainer(*callbacks: Callback, **options: Any) -> lightning.Trainer:
    """Return a Trainer that writes nothing."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": -1,
        "callbacks": list(callbacks),
    }
    return lightning.Trainer(**{**quiet, **options})


def fit(
    data: RolloutDataModule, model: DQN, *callbacks: Callback, **options: Any
) -> lightning.Trainer:
    """Run until the budget is used up."""
    trainer = quiet_trainer(*callbacks, **options)
    trainer.fit(model, data)
    return trainer
