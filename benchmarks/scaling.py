"""How the time of a phase grows with environments, tasks, width and replay, and where it bends.

    python benchmarks/scaling.py

trains contextual CartPole, one thing changed at a time around 3 tasks, 16 copies of each, two
layers of 128 and 100 000 transitions per task, and writes `benchmarks/results/scaling.csv`: by what
is changed and its value the microseconds of an env step of every task, all of playing, folding,
remembering and sampling included, and those of an update, medians over repeats with the lowest and
the highest; and a picture of them. A phase has as many env steps of each task and as many updates
in every row, so that only what is named changes. Points take turns, repeat by repeat.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from phase_times import PhaseTimes, phase_times

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.analysis.panels import COLOURS, GRID, INK, MUTED, readable_steps
from lit_mtdqn.networks import MLPTorso, QNetwork
from lit_mtdqn.process import configure_process

RESULTS = Path(__file__).parent / "results"
# Of one task and phase.
ENV_STEPS, UPDATES, BATCH_SIZE = 4096, 32, 128
COLUMNS = (
    *("playing_us", "playing_lowest_us", "playing_highest_us"),
    *("update_us", "update_lowest_us", "update_highest_us"),
)


@dataclass(frozen=True)
class Point:
    """A run that is timed; `filled` are transitions of each replay before the first phase."""

    copies: int = 16
    tasks: int = 3
    width: int = 128
    filled: int = 100_000


AXES: dict[str, tuple[str, Sequence[int]]] = {
    "copies": ("copies of each task's environment", (1, 4, 16, 64, 256, 1024)),
    "tasks": ("tasks", (1, 2, 4, 8, 16, 32)),
    "width": ("units of each of two layers", (32, 64, 128, 256, 512, 1024)),
    "filled": ("transitions in each replay", (10_000, 100_000, 1_000_000, 5_000_000)),
}


def spec(task: int) -> TaskSpec:
    """Return CartPole with a pole of its own length."""
    kwargs = {"context": {"length": 0.5 + 0.05 * task}}
    return TaskSpec(env="lit_mtdqn/ContextualCartPole-v0", kwargs=kwargs, n_step=3)


def measure(point: Point, skip: int, phases: int) -> PhaseTimes:
    """Return the times of a phase."""
    data = RolloutDataModule(
        {f"pole_{task}": spec(task) for task in range(point.tasks)},
        num_envs=point.copies,
        phase_vector_steps=ENV_STEPS // point.copies,
        replay_ratio=UPDATES / ENV_STEPS,
        batch_size=BATCH_SIZE,
        replay_capacity=point.filled,
        warmup_env_steps=point.filled,
        total_env_steps=2**50,
        evaluate_every_env_steps=2**49,
        seed=0,
    )
    torch.manual_seed(0)
    torso = partial(MLPTorso, hidden=(point.width, point.width))
    return phase_times(DQN(data.task_infos, partial(QNetwork, torso=torso)), data, skip, phases)


def draw(rows: dict[tuple[str, int], list[PhaseTimes]]) -> Figure:
    """Return a figure with a panel for each thing that is changed."""
    axes = [axis for axis in AXES if any(axis == known for known, _ in rows)]
    figure = Figure(figsize=(3.2 * len(axes), 2.9), layout="constrained")
    panels = figure.subplots(1, len(axes), squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        values = sorted(value for known, value in rows if known == axis)
        for colour, label, half in zip(
            COLOURS, ("env step of every task", "update"), (0, 1), strict=False
        ):
            taken = [[microseconds(t)[half] for t in rows[axis, value]] for value in values]
            middle = [statistics.median(some) for some in taken]
            panel.plot(values, middle, "o-", color=colour, ms=4, lw=1.4, label=label)
            ends = [min(some) for some in taken], [max(some) for some in taken]
            panel.fill_between(values, *ends, color=colour, alpha=0.15, lw=0)
        panel.set_xscale("log")
        panel.set_yscale("log")
        labels = [readable_steps(value) if value >= 10_000 else f"{value}" for value in values]
        panel.set_xticks(values, labels)
        panel.minorticks_off()
        panel.grid(color=GRID, lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlabel(AXES[axis][0], color=INK, fontsize=9)
        panel.tick_params(labelsize=8, colors=MUTED)
    panels[0].set_ylabel("microseconds", color=INK, fontsize=9)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def microseconds(times: PhaseTimes) -> tuple[float, float]:
    """Return those of an env step of every task and of an update."""
    return 1e6 * times.playing / ENV_STEPS, 1e6 * times.learning / UPDATES


def main() -> None:
    """Measure and write the results."""
    command = shlex.join(sys.argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--phases", type=int, default=12)
    parser.add_argument("--skip", type=int, default=3, help="phases of warm-up, not counted")
    given = parser.parse_args()
    configure_process(1)
    rows: dict[tuple[str, int], list[PhaseTimes]] = defaultdict(list)
    for _ in range(given.repeats):
        for axis in given.axes:
            for value in AXES[axis][1]:
                point = replace(Point(), **{axis: value})
                times = measure(point, given.skip, given.phases)
                rows[axis, value].append(times)
                play, update = microseconds(times)
                print(f"{axis} {value}: {play:.2f} us an env step, {update:.0f} us an update")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "scaling.csv").open("w", newline="") as file:
        file.write(f"# python {command}\n")
        writer = csv.writer(file)
        writer.writerow(["changed", "value", *COLUMNS])
        for (axis, value), taken in rows.items():
            halves = zip(*map(microseconds, taken), strict=True)
            chosen = [(statistics.median(half), min(half), max(half)) for half in halves]
            numbers = [f"{number:.3f}" for half in chosen for number in half]
            writer.writerow([axis, value, *numbers])
    draw(rows).savefig(RESULTS / "scaling.png", dpi=120)


if __name__ == "__main__":
    main()
