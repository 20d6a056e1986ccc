"""A short run on two ranks, as a script: `python distributed_run.py FOLDER`.

Each rank writes what it began and ended with into FOLDER.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from helpers.runs import NETWORK, quiet_trainer
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import DQN, PolicyDistillation, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import FisherInformation, TargetNetworkSync
from lit_mtdqn.networks.flat import saved_from_flat
from lit_mtdqn.objectives import FeatureRegression, Guidance, Match
from lit_mtdqn.process import configure_process
from lit_mtdqn.types import Clock, Phase


class Report(Callback):
    """Keeps the first phase, and the clock at every phase."""

    def __init__(self) -> None:
        self.first: Phase | None = None
        self.clocks: list[dict[str, Any]] = []

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Phase, batch_idx: int
    ) -> None:
        clock: Clock = trainer.datamodule.clock  # type: ignore[attr-defined]
        self.clocks.append(clock.state_dict())
        self.first = self.first or batch


def run(folder: Path) -> None:
    """Fit a learner to CartPole on two processes and a student to it; write a file per rank."""
    torch.manual_seed(0)
    data = _data(total_env_steps=300)
    model, report = DQN(data.task_infos, NETWORK), Report()
    fisher = FisherInformation(rows=64, normalise=False)
    callbacks: list[Callback] = [report, TargetNetworkSync(5), fisher]
    trainer = quiet_trainer(*callbacks, devices=2, strategy="ddp", default_root_dir=folder)
    trainer.fit(model, data)
    assert report.first is not None
    # One-step transitions, none forgotten: as many as this rank has made env steps.
    (slot,) = data.slots
    with patch.object(model, "mean_over_ranks", lambda tensor: tensor):
        own_fisher = fisher.measure(model, data.look(32))
    written = {
        "weights": model.state_dict(),
        "observation": report.first.transitions.observation,
        "clocks": report.clocks,
        "clock": data.clock.state_dict(),
        "own_env_steps": len(slot.replay),
        "own_fisher": saved_from_flat(model.network, own_fisher),
        "steps_directly": model._direct,
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }
    teacher = folder / "teacher.ckpt"
    trainer.save_checkpoint(teacher)
    student = _student({"cartpole": str(teacher)}).state_dict()
    torch.save({**written, "student": student}, folder / f"rank_{trainer.global_rank}.pt")


def _data(total_env_steps: int) -> RolloutDataModule:
    return RolloutDataModule(
        {"cartpole": TaskSpec(env="CartPole-v1")},
        num_envs=4,
        replay_ratio=0.25,
        phase_vector_steps=4,
        batch_size=8,
        replay_capacity=2_000,
        warmup_env_steps=100,
        total_env_steps=total_env_steps,
        evaluate_every_env_steps=100,
        eval_episodes=2,
        eval_max_steps=20,
        seed=3,
    )


def _student(teachers: dict[str, str]) -> PolicyDistillation:
    """Return a student of values that stores what its teacher says, after a few updates."""
    data = _data(total_env_steps=150)
    objectives: list[Any] = [FeatureRegression, partial(Guidance, teachers=teachers)]
    match: Any = partial(Match, kind="value_kl")
    model = PolicyDistillation(
        data.task_infos, teachers, None, NETWORK, match, None, objectives, labels="stored"
    )
    quiet_trainer(devices=2, strategy="ddp", limit_val_batches=0).fit(model, data)
    return model


if __name__ == "__main__":
    configure_process()
    run(Path(sys.argv[1]))
