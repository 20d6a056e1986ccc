r"""What compiling the losses of updates saves, and what it costs to begin with.

    python benchmarks/compiled_updates.py

lets two learners of one configuration make updates by turns, on the minibatches of one run, one of
them with `CompiledUpdates`, and writes `benchmarks/results/compiled_updates.csv`: per setting the
median milliseconds of an update of either, the median and the quartiles of their ratio over rounds,
and the seconds of the compiled one's first update, with nothing on the disk from earlier ones. On a
GPU:

    python benchmarks/compiled_updates.py --mode reduce-overhead --trainer.accelerator=gpu \
      --trainer.devices=1 --results benchmarks/results/compiled_updates_cuda.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer

from lit_mtdqn.algorithms.base import ValueLearner
from lit_mtdqn.callbacks import CompiledUpdates, RunReport
from lit_mtdqn.cli.main import RunCLI
from lit_mtdqn.types import Phase

NOISY = "configs/multitask/noisy_driving.yaml"
SETTINGS = {
    # 256x256, one task.
    "cartpole": ["configs/dqn/cartpole.yaml", "--data.batch_size=64"],
    # C51, dueling, noisy layers, priorities.
    "rainbow_cartpole": ["configs/dqn/rainbow_cartpole.yaml"],
    # 128x128, three tasks.
    "three_tasks": ["configs/driving/three_tasks.yaml"],
    # A convolution.
    "minatar_breakout": ["configs/dqn/minatar_breakout.yaml"],
    # Experts per task under PopArt, and gradients per task.
    "moore": [NOISY, "--config=configs/methods/moore.yaml"],
    "pcgrad": [NOISY, "--config=configs/methods/pcgrad.yaml"],
}
NAMES = ("eager", "compiled")
RESULTS = Path(__file__).parent / "results" / "compiled_updates.csv"


class TakeTurns(Callback):
    """After each phase, times the same updates of both learners."""

    def __init__(self, guests: list[ValueLearner], mode: Any, skip: int, rounds: int) -> None:
        self.guests, self.compiling = guests, CompiledUpdates(mode)
        self.skip, self.rounds = skip, rounds
        self.optimizers: list[LightningOptimizer] = []
        self.milliseconds: tuple[list[float], list[float]] = ([], [])
        self.first = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Make both ready to update."""
        for guest in self.guests:
            guest.to(pl_module.device)
            optimizer = LightningOptimizer(guest.configure_optimizers())
            guest.optimizers = lambda own=optimizer: own  # type: ignore[method-assign]
            self.optimizers.append(optimizer)
            guest.trainer = trainer
            guest.on_fit_start()
            # The run's own callbacks follow its own learner.
            guest._update_callbacks = []
            guest.network.train()
        self.compiling.on_fit_start(trainer, self.guests[1])

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Phase, batch_idx: int
    ) -> None:
        """Let both update, each first in every other round."""
        minibatches = list(batch.transitions.minibatches())[:8]
        for place in (0, 1) if batch_idx % 2 else (1, 0):
            guest, optimizer = self.guests[place], self.optimizers[place]
            started = time.perf_counter()
            for minibatch in minibatches:
                guest.update(minibatch, optimizer)
                if place and not self.first:
                    self.first = time.perf_counter() - started
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            took = 1e3 * (time.perf_counter() - started) / len(minibatches)
            self.milliseconds[place].append(took)
        if batch_idx + 1 >= self.skip + self.rounds:
            trainer.should_stop = True

    def row(self) -> list[str]:
        """Return the row of the results."""
        eager, compiled = (took[self.skip :] for took in self.milliseconds)
        ratios = [b / a for a, b in zip(eager, compiled, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        medians = [statistics.median(took) for took in (eager, compiled)]
        found = [*(f"{m:.3f}" for m in medians), *(f"{r:.3f}" for r in (middle, low, high))]
        return [*found, f"{self.first:.1f}"]


def built(folder: str, arguments: list[str]) -> RunCLI:
    """Return a run that waits."""
    config, *others = arguments
    others += ["--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=0"]
    sys.argv = ["lit-mtdqn", "fit", f"--config={config}", f"--run_dir={folder}", *others]

    class Waiting(RunCLI):
        def fit(self, **_: Any) -> None:
            """Wait until both guests are there."""

    return Waiting()


def measure(arguments: list[str], mode: str, skip: int, rounds: int) -> list[str]:
    """Return the row of one setting."""
    with tempfile.TemporaryDirectory() as folder:
        # Nothing that was compiled before is found.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/compiled"
        cli = built(f"{folder}/run", arguments)
        guests = [built(f"{folder}/{name}", arguments).model for name in NAMES]
        turns = TakeTurns(guests, mode, skip, rounds)
        callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [*(c for c in callbacks if not isinstance(c, RunReport)), turns]
        cli.datamodule.evaluate_every_env_steps = cli.datamodule.total_env_steps
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        return turns.row()


def main() -> None:
    """Measure and write the results."""
    command = shlex.join(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--mode", default="default")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--skip", type=int, default=30, help="rounds of warm-up, not counted")
    found, arguments = parser.parse_known_args()
    on_gpu = "--trainer.accelerator=gpu" in arguments
    device = torch.cuda.get_device_name() if on_gpu else platform.machine()
    found.results.parent.mkdir(exist_ok=True)
    with found.results.open("w", newline="") as file:
        file.write(f"# python {command}\n# {device}, torch {torch.__version__}\n")
        writer = csv.writer(file)
        ratios = ["ratio", "ratio_25", "ratio_75"]
        writer.writerow(["setting", "eager_ms", "compiled_ms", *ratios, "first_s"])
        for name in found.settings:
            row = measure([*SETTINGS[name], *arguments], found.mode, found.skip, found.rounds)
            writer.writerow([name, *row])
            file.flush()
            print(name, *row)


if __name__ == "__main__":
    main()
