"""What an update costs under each method, relative to one without it.

    python benchmarks/method_cost.py

lets a learner for each overlay of `configs/methods/` that changes the model make updates by turns,
on the minibatches of one run on the driving tasks, and writes `benchmarks/results/method_cost.csv`:
per number of tasks and overlay the median milliseconds of an update and the median ratio to the
update without an overlay of the same round. Methods that need solvers which are not installed,
another run, teachers, cumulants or a task without rewards are left out.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer

from lit_mtdqn import MultiTaskDQN, RolloutDataModule, TaskSpec
from lit_mtdqn.process import configure_process
from lit_mtdqn.types import Phase, TaskInfo

ENVS = ("LaneKeeping", "Pedestrian", "TrafficLight")
METHODS = Path("configs/methods")
CONTROL = "hard_sharing"
# What overlays hold that want more than the tasks, such as another run, teachers or cumulants.
NEEDS = (
    *("runs/source", "PartLearningRates", "PolicyDistillation"),
    *("objectives.Align", "SuccessorHead"),
)
RESULTS = Path(__file__).parent / "results" / "method_cost.csv"


def methods() -> dict[str, dict[str, Any]]:
    """Return the arguments that each overlay gives the model, the control's first."""
    texts = {path.stem: path.read_text() for path in sorted(METHODS.glob("*.yaml"))}
    alone = {name: text for name, text in texts.items() if not any(n in text for n in NEEDS)}
    overlays = {name: yaml.safe_load(text) for name, text in alone.items()}
    found = {name: o["model"].get("init_args", {}) for name, o in overlays.items() if "model" in o}
    for arguments in found.values():
        torso = arguments.get("network", {}).get("init_args", {}).get("torso", {})
        if torso:
            torso.setdefault("class_path", "lit_mtdqn.networks.MLPTorso")
    return {CONTROL: {}, **found}


class Guest(MultiTaskDQN):
    """Updates in the run of another learner, with an optimiser of its own."""

    own: LightningOptimizer

    def optimizers(self, use_pl_optimizer: bool = True) -> LightningOptimizer:  # type: ignore[override]
        """Return its own optimiser."""
        return self.own


def guest(
    tasks: list[TaskInfo], arguments: dict[str, Any], trainer: lightning.Trainer
) -> Guest | None:
    """Return a learner that is ready to update, or None if its solver is not installed."""
    torch.manual_seed(0)
    try:
        learner = Guest(tasks, **arguments)
    except ImportError:
        return None
    learner.own = LightningOptimizer(learner.configure_optimizers())
    learner.trainer = trainer
    learner.on_fit_start()
    learner.network.train()
    return learner


class TakeTurns(Callback):
    """After each phase, times an update of every guest."""

    def __init__(self, skip: int, rounds: int) -> None:
        self.skip, self.rounds = skip, rounds
        self.guests: dict[str, Guest] = {}
        self.seconds: dict[str, list[float]] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Invite the guests."""
        found = {n: guest(pl_module.tasks, given, trainer) for n, given in methods().items()}
        self.guests = {name: learner for name, learner in found.items() if learner is not None}
        self.seconds = {name: [] for name in self.guests}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Phase, batch_idx: int
    ) -> None:
        """Let each guest update."""
        *_, minibatch = batch.transitions.minibatches()
        # Each in turn begins, with what the rollout has left in the caches.
        names = list(self.guests)
        first = batch_idx % len(names)
        for name in (*names[first:], *names[:first]):
            learner = self.guests[name]
            started = time.perf_counter()
            learner.update(minibatch, learner.own)
            self.seconds[name].append(time.perf_counter() - started)
        if batch_idx + 1 >= self.skip + self.rounds:
            trainer.should_stop = True

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, milliseconds and ratio of each guest."""
        counted = {name: seconds[self.skip :] for name, seconds in self.seconds.items()}
        control = counted[CONTROL]
        return [
            (
                name,
                f"{1e3 * statistics.median(seconds):.3f}",
                f"{statistics.median(a / b for a, b in zip(seconds, control, strict=True)):.2f}",
            )
            for name, seconds in counted.items()
        ]


def measure(tasks: int, skip: int, rounds: int) -> list[tuple[str, str, str]]:
    """Return the rows of one number of tasks."""
    specs = {
        f"task_{place}": TaskSpec(env=f"lit_mtdqn/{ENVS[place % len(ENVS)]}-v0")
        for place in range(tasks)
    }
    data = RolloutDataModule(
        specs, num_envs=16, phase_vector_steps=16, replay_ratio=1 / 256, batch_size=96
    )
    data.evaluate_every_env_steps = 10_000_000
    turns = TakeTurns(skip, rounds)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        max_epochs=-1,
        callbacks=[turns],
    )
    trainer.fit(MultiTaskDQN(data.task_infos), data)
    return turns.rows()


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--skip", type=int, default=10, help="rounds of warm-up, not counted")
    found = parser.parse_args()
    configure_process()
    # Of cvxpy's about Nash-MTL's problem.
    warnings.filterwarnings("ignore", "You are solving a parameterized problem")
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        file.write(f"# python {shlex.join(sys.argv)}\n")
        writer = csv.writer(file)
        writer.writerow(["tasks", "method", "update_ms", "ratio"])
        for tasks in found.tasks:
            for row in measure(tasks, found.skip, found.rounds):
                writer.writerow([tasks, *row])
                print(tasks, *row)


if __name__ == "__main__":
    main()
