"""A short run on two ranks, as a script: `python distributed_run.py FOLDER`.

Each rank writes what it began and ended with into FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from helpers.runs import NETWORK, quiet_trainer
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import FisherInformation, TargetNetworkSync
from lit_mtdqn.networks.flat import saved_from_flat
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
    """Fit a learner to CartPole on two processes and write a file per rank."""
    torch.manual_seed(0)
    data = RolloutDataModule(
        {"cartpole": TaskSpec(env="CartPole-v1")},
        num_envs=4,
        replay_ratio=0.25,
        phase_vector_steps=4,
        batch_size=8,
        replay_capacity=2_000,
        warmup_env_steps=100,
        total_env_steps=300,
        evaluate_every_env_steps=100,
        eval_episodes=2,
        eval_max_steps=20,
        seed=3,
    )
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
    torch.save(written, folder / f"rank_{trainer.global_rank}.pt")


if __name__ == "__main__":
    configure_process()
    run(Path(sys.argv[1]))
