"""A work done by `lit-mtdqn fit`, with logger, checkpoints and every default callback.

Replays are not written to the disk at the end, as no other program writes its own.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import yaml
from built_run import build
from lightning.pytorch.callbacks import Callback
from measuring import Array, Goal, Stopwatch
from works import Work

TASK = "task"


class Watch(Callback):
    """Takes evaluations off the clock and ends the training at its goal."""

    def __init__(self, program: Program, goal: Goal, stopwatch: Stopwatch) -> None:
        self.program, self.goal, self.stopwatch = program, goal, stopwatch

    def on_validation_start(self, *_: Any) -> None:
        """Stop the clock."""
        self.stopwatch.stop()

    def on_validation_end(self, *_: Any) -> None:
        """Start it again."""
        self.stopwatch.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Evaluate when that is due."""
        if self.goal.look(self.program.counts()[0], self.program.act):
            trainer.should_stop = True


class Program:
    """The whole training.

    Args:
        work: What is to be done.
        seed: Of everything.
        folder: For what the run leaves.
        only: The only task of the configuration that is learned; None for all.
    """

    def __init__(self, work: Work, seed: int, folder: Path, only: str | None = None) -> None:
        config = configuration(work)
        if only is not None:
            config["data"]["tasks"] = {only: config["data"]["tasks"][only]}
        config["data"]["total_env_steps"] = work.total_env_steps
        # Once: its evaluations are off the clock, but take their time.
        config["data"]["evaluate_every_env_steps"] = work.total_env_steps
        folder.mkdir(exist_ok=True)
        path = folder / "work.yaml"
        path.write_text(yaml.safe_dump(config))
        arguments = (f"--config={path}", f"--seed_everything={seed}", f"--run_dir={folder / 'run'}")
        quiet = ("--trainer.enable_progress_bar=false", "--save_replays=false")
        self._run = build([*arguments, *quiet])

    def train(self, goal: Goal, stopwatch: Stopwatch) -> None:
        """Train to the goal or the end."""
        trainer: Any = self._run.trainer
        trainer.callbacks.append(Watch(self, goal, stopwatch))
        self._run.start()

    def counts(self) -> tuple[int, int]:
        """Return env steps and updates."""
        clock = self._run.datamodule.clock
        return clock.total_env_steps, clock.updates

    def act(self, observation: Array, task: int) -> Array:
        """Return greedy actions."""
        if observation.ndim == 4:
            observation = observation.transpose(0, 3, 1, 2).astype(np.uint8)
        rows = torch.from_numpy(np.ascontiguousarray(observation))[None]
        values = self._run.model.action_values(rows, torch.tensor([task]))[0].numpy()
        chosen: Array = values[:, : self._run.model.tasks[task].num_actions].argmax(-1)
        return chosen


class EachTask:
    """Every task of a configuration in a run of its own, one after another."""

    def __init__(self, work: Work, seed: int, folder: Path) -> None:
        tasks = list(configuration(work)["data"]["tasks"])
        share = {"total_env_steps": math.ceil(work.total_env_steps / len(tasks))}
        own = Work(**{**vars(work), **share})
        self._programs = [Program(own, seed, folder / task, only=task) for task in tasks]

    def train(self, goal: Goal, stopwatch: Stopwatch) -> None:
        """Train one after another."""
        for program in self._programs:
            program.train(goal, stopwatch)

    def counts(self) -> tuple[int, int]:
        """Return env steps and updates of all."""
        env_steps, updates = zip(*(program.counts() for program in self._programs), strict=True)
        return sum(env_steps), sum(updates)


def configuration(work: Work) -> dict[str, Any]:
    """Return the configuration that makes a work."""
    if work.config is not None:
        config: dict[str, Any] = yaml.safe_load(Path(work.config).read_text())
        return config
    minatar = work.torso == "minatar"
    torso: dict[str, Any] = {"class_path": "lit_mtdqn.networks.MLPTorso"}
    torso["init_args"] = {"hidden": list(work.hidden)}
    if minatar:
        torso = {"class_path": "lit_mtdqn.networks.MinAtarTorso"}
        torso["init_args"] = {"hidden": work.hidden[0]}
    network = {
        "torso": torso,
        "head": {"class_path": "lit_mtdqn.networks.LinearHead", "init_args": {"loss": work.loss}},
    }
    model = {
        "network": {"class_path": "lit_mtdqn.networks.QNetwork", "init_args": network},
        "optimizer": {"class_path": "lit_mtdqn.Adam", "init_args": {"lr": work.lr, "eps": 1e-8}},
        "objective": {
            "class_path": "lit_mtdqn.objectives.TD",
            "init_args": {"bootstrap": "double" if work.double else "max"},
        },
        "max_grad_norm": work.max_grad_norm,
    }
    data = {
        "tasks": {TASK: {"env": work.env, "gamma": work.gamma, "n_step": work.n_step}},
        "num_envs": work.num_envs,
        "phase_vector_steps": work.cycle_vector_steps,
        "replay_ratio": work.replay_ratio,
        "batch_size": work.batch_size,
        "replay_capacity": work.replay_capacity,
        "warmup_env_steps": work.warmup_env_steps,
    }
    sync = {"every_n_updates": work.target_updates}
    decay = {
        "start": work.epsilon_start,
        "end": work.epsilon_end,
        "decay_env_steps": work.epsilon_env_steps,
    }
    callbacks = [
        {"class_path": "lit_mtdqn.callbacks.TargetNetworkSync", "init_args": sync},
        {"class_path": "lit_mtdqn.callbacks.EpsilonDecay", "init_args": decay},
    ]
    return {
        "model": {"class_path": "lit_mtdqn.DQN", "init_args": model},
        "data": data,
        "trainer": {"accelerator": "cpu", "callbacks": callbacks},
    }
