"""How much longer a `fit` takes than a hand-written loop that does the same work.

Both live in one process and take turns phase by phase, so that whatever else the machine does
slows both. The `fit` runs with its CSV logger, progress bar and every default callback.

    python benchmarks/loop_overhead.py

writes `benchmarks/results/loop_overhead.csv`: one row per repeat, the median over its phases.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning
from hand_written import HandWrittenLoop, Settings
from lightning.pytorch.callbacks import Callback

from lit_mtdqn.cli.main import RunCLI
from lit_mtdqn.data import RolloutDataModule

CONFIG = "configs/driving/three_tasks.yaml"
RESULTS = Path(__file__).parent / "results" / "loop_overhead.csv"


class TakeTurns(Callback):
    """After each phase of the `fit`, times one phase of the hand-written loop."""

    def __init__(self, loop: HandWrittenLoop, skip: int, phases: int) -> None:
        self.loop = loop
        self.skip = skip
        self.phases = phases
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self._since: float | None = None

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Read the clock, run the other loop, read it again."""
        now = time.perf_counter()
        if self._since is not None:
            self.ours.append(now - self._since)
        started = time.perf_counter()
        self.loop.phase()
        self._since = time.perf_counter()
        self.theirs.append(self._since - started)
        if len(self.ours) >= self.skip + self.phases:
            trainer.should_stop = True

    def medians(self) -> tuple[float, float]:
        """Return the median milliseconds of a phase, ours and theirs."""
        rest = slice(self.skip, None)
        return 1e3 * statistics.median(self.ours[rest]), 1e3 * statistics.median(self.theirs[rest])


def settings_of(data: RolloutDataModule, cli: RunCLI) -> Settings:
    """Return the hand-written loop's numbers, read from the configuration."""
    specs = list(data.tasks.values())
    model = cli.config.fit.model.init_args
    optimizer, torso = model.optimizer.init_args, model.network.init_args.torso.init_args
    (sync,) = [c for c in cli.config.fit.trainer.callbacks if "TargetNetworkSync" in c.class_path]
    return Settings(
        envs=tuple(spec.env for spec in specs),
        num_envs=data.num_envs,
        phase_vector_steps=data.phase_vector_steps,
        updates=data.updates_per_phase,
        batch_size=data.batch_size,
        gamma=specs[0].gamma,
        n_step=specs[0].n_step,
        hidden=tuple(torso.hidden),
        lr=optimizer.lr,
        eps=optimizer.eps,
        max_grad_norm=model.max_grad_norm,
        sync_every=sync.init_args.every_n_updates,
        epsilon=0.1,
        capacity=data.replay_capacity,
    )


def measure(folder: str, skip: int, phases: int, arguments: list[str]) -> tuple[float, float, int]:
    """Return median milliseconds per phase of both, and the updates in a phase."""
    sys.argv = ["lit-mtdqn", "fit", f"--config={CONFIG}", f"--run_dir={folder}", *arguments]

    class Built(RunCLI):
        def fit(self, **_: Any) -> None:
            """Wait until the other loop is there too."""

    cli = Built()
    data = cli.datamodule
    turns = TakeTurns(HandWrittenLoop(settings_of(data, cli), seed=0), skip, phases)
    cli.trainer.callbacks.append(turns)  # type: ignore[attr-defined]
    data.evaluate_every_env_steps = data.total_env_steps
    cli.trainer.fit(cli.model, datamodule=data)
    return (*turns.medians(), data.updates_per_phase)


def main() -> None:
    """Measure and write the results."""
    command = shlex.join(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--phases", type=int, default=400)
    parser.add_argument("--skip", type=int, default=50, help="phases of warm-up, not counted")
    found, arguments = parser.parse_known_args()
    rows = []
    for repeat in range(found.repeats):
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs, updates = measure(folder, found.skip, found.phases, arguments)
        rows.append((repeat, updates, f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.4f}"))
        print(f"{repeat}: fit {ours:.2f} ms, hand-written {theirs:.2f} ms, {ours / theirs:.3f}")
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        file.write(f"# python {command}\n")
        writer = csv.writer(file)
        writer.writerow(["repeat", "updates", "fit_ms", "hand_written_ms", "ratio"])
        writer.writerows(rows)
    print(f"median ratio {statistics.median(float(row[-1]) for row in rows):.3f}")


if __name__ == "__main__":
    main()
