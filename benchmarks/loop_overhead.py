"""How much longer a `fit` takes than a hand-written loop that does the same work.

Both live in one process and take turns phase by phase, so that whatever else the machine does
slows both. The `fit` runs with its CSV logger and every default callback.

    python benchmarks/loop_overhead.py
    python benchmarks/loop_overhead.py --widths 64 128 256 512 1024 --updates 1 4 16 64 --seconds 20

writes `benchmarks/results/loop_overhead.csv` (with `--config`, `--widths` or `--updates` under a
name of its own): one row per repeat, width and K, the medians over its phases; of several K also a
picture. With `--updates` there is one update for each step of all environments, so that K updates
follow K such steps. What is left over is given to `lit-mtdqn fit`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import shlex
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning
from built_run import BuiltRun, build
from hand_written import HandWrittenLoop, Settings
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure

from lit_mtdqn.analysis.panels import COLOURS, INK
from lit_mtdqn.callbacks import EpsilonDecay, TargetNetworkSync
from lit_mtdqn.networks.torsos import MinAtarTorso

CONFIG = "configs/driving/three_tasks.yaml"
RESULTS = Path(__file__).parent / "results"
MIN_PHASES = 12
COLUMNS = ("repeat", "width", "updates", "fit_ms", "hand_written_ms", "ratio")


class TakeTurns(Callback):
    """After each phase of the `fit`, times one phase of the hand-written loop."""

    def __init__(self, loop: HandWrittenLoop, skip: int, phases: int, seconds: float) -> None:
        self.loop = loop
        self.skip = skip
        self.phases = phases
        self.ends = time.perf_counter() + seconds
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
        counted = len(self.ours) - self.skip
        late = counted >= MIN_PHASES and time.perf_counter() > self.ends
        if counted >= self.phases or late:
            trainer.should_stop = True

    def medians(self) -> tuple[float, float]:
        """Return the median milliseconds of a phase, ours and theirs."""
        rest = slice(self.skip, None)
        return 1e3 * statistics.median(self.ours[rest]), 1e3 * statistics.median(self.theirs[rest])


def settings_of(run: BuiltRun) -> Settings:
    """Return the hand-written loop's numbers, read from a run of DQN on tasks of one size."""
    data, model = run.datamodule, run.model
    specs = list(data.tasks.values())
    torso = model.network.torso
    planes = isinstance(torso, MinAtarTorso)
    (group,) = model.configure_optimizers().param_groups
    sync, decay = (_last(run, kind) for kind in (TargetNetworkSync, EpsilonDecay))
    return Settings(
        envs=tuple(spec.env for spec in specs),
        num_envs=data.num_envs,
        phase_vector_steps=data.phase_vector_steps,
        updates=data.updates_per_phase,
        batch_size=data.batch_size,
        gamma=specs[0].gamma,
        n_step=specs[0].n_step,
        hidden=torso.layer_sizes[planes:],
        lr=group["lr"],
        eps=group["eps"],
        max_grad_norm=model.max_grad_norm,
        sync_every=sync.every_n_updates,
        epsilon=decay.schedule,
        capacity=data.replay_capacity,
        warmup=data.warmup_env_steps,
        double=model.objective.bootstrap == "double",
        huber=model.network.head.huber_delta is not None,
        planes=planes,
        learning_rate=model.learning_rate_schedule,
    )


def _last(run: BuiltRun, kind: type[Callback]) -> Any:
    """Return the callback of a kind that a run obeys."""
    trainer: Any = run.trainer
    return [kind(), *(one for one in trainer.callbacks if isinstance(one, kind))][-1]


def arguments_for(config: str, width: int | None, updates: int | None) -> list[str]:
    """Return what a `fit` of a configuration is given for networks of a width and K updates."""
    arguments = [f"--config={config}"]
    if width is not None:
        arguments.append(f"--model.network.torso.hidden=[{width}, {width}]")
    if updates is not None:
        envs = build_data(arguments).num_envs
        arguments += [f"--data.phase_vector_steps={updates}", f"--data.replay_ratio={1 / envs}"]
    return arguments


def build_data(arguments: list[str]) -> Any:
    """Return the data module that arguments make."""
    with tempfile.TemporaryDirectory() as folder:
        return build([*arguments, f"--run_dir={folder}"]).datamodule


def measure(
    skip: int, phases: int, seconds: float, arguments: list[str]
) -> tuple[float, float, Any]:
    """Return median milliseconds per phase of both, and the run."""
    with tempfile.TemporaryDirectory() as folder:
        run = build([*arguments, f"--run_dir={folder}/run", "--trainer.enable_progress_bar=false"])
        turns = TakeTurns(HandWrittenLoop(settings_of(run), seed=0), skip, phases, seconds)
        trainer: Any = run.trainer
        trainer.callbacks.append(turns)
        data = run.datamodule
        # Neither stops before its phases are over.
        data.total_env_steps = 10**9
        data.evaluate_every_env_steps = data.total_env_steps
        run.start()
    return (*turns.medians(), run)


def draw(ratios: dict[tuple[int, int], list[float]]) -> Figure:
    """Return a figure of median ratios over K, a line for each width.

    Args:
        ratios: By width and K.
    """
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    panel = figure.add_subplot()
    for place, width in enumerate(sorted({width for width, _ in ratios})):
        counts = sorted(updates for own, updates in ratios if own == width)
        middle = [statistics.median(ratios[width, updates]) for updates in counts]
        colour = COLOURS[place % len(COLOURS)]
        panel.plot(counts, middle, "o-", color=colour, ms=4, lw=1.4, label=f"{width} wide")
    panel.axhline(1.0, color=INK, lw=0.8)
    panel.set_xscale("log", base=2)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel("updates of a phase", fontsize=9)
    panel.set_ylabel("fit over hand-written loop", fontsize=9)
    panel.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Measure and write the results."""
    command = shlex.join(sys.argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--widths", type=int, nargs="*", default=[None])
    parser.add_argument("--updates", type=int, nargs="*", default=[None], help="K, of a phase")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--phases", type=int, default=400)
    parser.add_argument("--skip", type=int, default=50, help="phases of warm-up, not counted")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help=f"of a row, once {MIN_PHASES} phases count"
    )
    given, rest = parser.parse_known_args()
    grid = ["grid"] if given.widths != [None] or given.updates != [None] else []
    other = [Path(given.config).stem] if given.config != CONFIG else []
    name = "_".join(["loop_overhead", *other, *grid])
    RESULTS.mkdir(exist_ok=True)
    ratios: dict[tuple[int, int], list[float]] = defaultdict(list)
    with (RESULTS / f"{name}.csv").open("w", newline="", buffering=1) as file:
        file.write(f"# python {command}\n")
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for repeat, width, updates in itertools.product(
            range(given.repeats), given.widths, given.updates
        ):
            arguments = [*arguments_for(given.config, width, updates), *rest]
            ours, theirs, run = measure(given.skip, given.phases, given.seconds, arguments)
            where = run.model.network.num_features, run.datamodule.updates_per_phase
            ratios[where].append(ours / theirs)
            row = (repeat, *where, f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.4f}")
            writer.writerow(row)
            print(", ".join(f"{n} {value}" for n, value in zip(COLUMNS, row, strict=True)))
    for (width, updates), found in ratios.items():
        middle = f"median ratio {statistics.median(found):.3f}"
        print(f"width {width}, K {updates}: {middle}, {min(found):.3f} to {max(found):.3f}")
    if len({updates for _, updates in ratios}) > 1:
        draw(ratios).savefig(RESULTS / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
