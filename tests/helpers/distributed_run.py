"""Short runs on two ranks, as a script: `python distributed_run.py FOLDER`.

Each rank writes what it began and ended with into FOLDER. The last run is interrupted.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from helpers.runs import NETWORK, quiet_trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import MixedPrecision

from lit_mtdqn import DQN, PQN, PolicyDistillation, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import (
    FisherInformation,
    GracefulStop,
    InitialEvaluation,
    SkippedUpdates,
    TargetNetworkSync,
)
from lit_mtdqn.networks import MLPTorso
from lit_mtdqn.networks.flat import saved_from_flat
from lit_mtdqn.objectives import FeatureRegression, Guidance, Match
from lit_mtdqn.process import configure_process
from lit_mtdqn.replay import Prioritisation
from lit_mtdqn.types import Clock, Losses, Phase, Transition


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


class Interrupted(Callback):
    """Tells the second rank alone to stop, and writes when a rank does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_rank == 1 and trainer.global_step >= 8:
            signal.raise_signal(signal.SIGINT)

    def on_exception(self, trainer: lightning.Trainer, *_: Any) -> None:
        clock: Clock = trainer.datamodule.clock  # type: ignore[attr-defined]
        torch.save(clock.phases, self.folder / f"stopped_{trainer.global_rank}.pt")
        # Lightning's first rank kills the others.
        trainer.strategy.barrier()


# Single copies and batches of environments, in rounds that are shared out.
EVALUATED = {
    "batched": TaskSpec(env="CartPole-v1"),
    "single": TaskSpec(env="CartPole-v1", backend="sync"),
}


def evaluation_data() -> RolloutDataModule:
    """Return data of which the tests are compared with those of one process."""
    return RolloutDataModule(
        EVALUATED, total_env_steps=10_000, test_episodes=40, eval_max_steps=30, eval_epsilon=0.2
    )


def run(folder: Path) -> None:
    """Fit learners to CartPole on two processes; write a file per rank."""
    torch.manual_seed(0)
    data = _data(total_env_steps=300)
    model, report = DQN(data.task_infos, NETWORK), Report()
    fisher = FisherInformation(rows=64, normalise=False)
    callbacks: list[Callback] = [report, TargetNetworkSync(5), fisher, InitialEvaluation()]
    options: dict[str, Any] = {"log_every_n_steps": 1, "default_root_dir": folder}
    trainer = quiet_trainer(*callbacks, devices=2, strategy="ddp", **options)
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
        "episodes": data.source.statistics.state_dict() if data.source is not None else {},
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
    }
    teacher = folder / "teacher.ckpt"
    trainer.save_checkpoint(teacher)
    written["student"] = _student({"cartpole": str(teacher)}).state_dict()
    written["pqn"], written["prioritised"] = _pqn().state_dict(), _prioritised()
    written["skipping"] = _skipping(folder)
    written["tests"] = _tests()
    written["background"] = _played(_data(total_env_steps=150, background=True))
    tensors: Any = {"device_resident": True, "replay_storage": "device"}
    written["resident"] = _played(_data(150, "lit_mtdqn/ContextualCartPole-v0", **tensors))
    torch.save(written, folder / f"rank_{trainer.global_rank}.pt")
    _interrupted(folder)


def _data(total_env_steps: int, env: str = "CartPole-v1", **options: Any) -> RolloutDataModule:
    return RolloutDataModule(
        {"cartpole": TaskSpec(env=env)},
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
        **options,
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


def _ranks(*callbacks: Callback, **options: Any) -> lightning.Trainer:
    quiet = {"devices": 2, "strategy": "ddp", "limit_val_batches": 0, **options}
    return quiet_trainer(*callbacks, **quiet)


def _pqn() -> PQN:
    """Return a learner of returns after a few phases, in mixed precision."""
    data = _data(total_env_steps=150, keeps_replays=False)
    network: Any = partial(NETWORK, torso=partial(MLPTorso, hidden=[8], layer_norm=True))
    model = PQN(data.task_infos, network)
    _ranks(precision="bf16-mixed").fit(model, data)
    return model


def _prioritised() -> dict[str, Any]:
    """Return what prioritised replay leads to, of a learner whose first updates overflow."""
    data = _data(total_env_steps=200, prioritisation=Prioritisation())
    model = DQN(data.task_infos, NETWORK)
    scaler: Any = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-60)
    trainer = _ranks(plugins=MixedPrecision("16-mixed", "cpu", scaler=scaler))
    trainer.fit(model, data)
    assert data.source is not None
    phase = data.source.next_phase()
    return {
        "weights": model.state_dict(),
        "updates": data.clock.updates,
        "steps": trainer.global_step,
        "importance": phase.transitions.weight,
    }


class HalfBroken(DQN):
    """On the second rank alone, two of its minibatches have a reward that is no number."""

    tried = 0

    def update(self, batch: Transition, optimizer: LightningOptimizer) -> Losses:
        self.tried += 1
        if self.trainer.global_rank == 1 and self.tried in (2, 5):
            batch = batch._replace(reward=torch.full_like(batch.reward, torch.nan))
        return super().update(batch, optimizer)


def _skipping(folder: Path) -> dict[str, Any]:
    """Return what a learner has come to whose numbers fail on one rank."""
    data, skipped = _data(total_env_steps=150), SkippedUpdates()
    model = HalfBroken(data.task_infos, NETWORK)
    _ranks(skipped, default_root_dir=folder).fit(model, data)
    return {
        "weights": model.state_dict(),
        "updates": data.clock.updates,
        "tried": model.tried,
        "skipped": skipped.total,
    }


def untrained(data: RolloutDataModule) -> DQN:
    """Return the network whose tests are compared."""
    torch.manual_seed(7)
    return DQN(data.task_infos, NETWORK)


def _tests() -> dict[str, float]:
    data = evaluation_data()
    (metrics,) = _ranks().test(untrained(data), data, verbose=False)
    return dict(metrics)


def _played(data: RolloutDataModule) -> dict[str, Any]:
    """Return what a learner has come to, and what its rank saw in the first phase."""
    model, report = DQN(data.task_infos, NETWORK), Report()
    _ranks(report).fit(model, data)
    assert report.first is not None
    return {
        "weights": model.state_dict(),
        "observation": report.first.transitions.observation,
        "clock": data.clock.state_dict(),
    }


def _interrupted(folder: Path) -> None:
    data = _data(total_env_steps=10_000)
    model = DQN(data.task_infos, NETWORK)
    with suppress(SystemExit):
        _ranks(GracefulStop(), Interrupted(folder)).fit(model, data)


if __name__ == "__main__":
    configure_process()
    run(Path(sys.argv[1]))
