"""What one call of a policy takes: in PyTorch, compiled, and exported.

    python benchmarks/exported.py

builds the networks of some configurations, exports each, compares every file with its network on
10 000 observations per task, and times calls with 1 and with 256 observations of each task by
turns, on one thread. It writes `benchmarks/results/exported.csv`: per network, number of
observations and form the median milliseconds of a call, their quartiles over rounds, and in how
many of all compared observations the greedy action is the same. Networks are new: learning changes
no time.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lit_mtdqn.analysis.csv_file import write_csv
from lit_mtdqn.cli.main import Rehearsal
from lit_mtdqn.deployment import GreedyPolicy, export_policy
from lit_mtdqn.deployment.exporting import NAMES, load
from lit_mtdqn.process import configure_process

SETTINGS = {
    "cartpole": ["configs/dqn/cartpole.yaml"],
    "rainbow_cartpole": ["configs/dqn/rainbow_cartpole.yaml"],
    "minatar_breakout": ["configs/dqn/minatar_breakout.yaml"],
    "three_tasks": ["configs/driving/three_tasks.yaml"],
    "moore": ["configs/multitask/noisy_driving.yaml", "configs/methods/moore.yaml"],
}
ROWS = (1, 256)
HEADER = ("network", "tasks", "observations", "form", "ms", "ms_25", "ms_75", "same", "compared")
RESULTS = Path(__file__).parent / "results" / "exported.csv"
Inputs = tuple[np.ndarray, ...]


def built(configs: list[str]) -> tuple[Any, Any]:
    """Return the learner and the data module of configurations."""
    arguments = [f"--config={config}" for config in configs]
    # Nothing is written there.
    parts = Rehearsal(["fit", *arguments, f"--run_dir={tempfile.gettempdir()}"], builds=True)
    return parts.model, parts.datamodule


def forms_of(learner: Any, folder: Path) -> dict[str, Callable[..., Any]]:
    """Return the same policy in all its forms, on arrays."""
    policy = GreedyPolicy(learner.network, learner.scale)
    compiled = torch.compile(policy, dynamic=True)

    def on_arrays(module: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: np.ndarray) -> Any:
            with torch.inference_mode():
                return module(*map(torch.from_numpy, inputs))

        return call

    files = {kind: load(kind, folder / f"policy.{kind}") for kind in ("pt2", "onnx")}
    return {"torch": on_arrays(policy), "compiled": on_arrays(compiled), **files}


def inputs_of(data: Any, rows: int) -> Inputs:
    """Return random inputs, as many observations of each task."""
    tasks, layout = len(data.task_infos), data.layout
    shape = (tasks, rows, *layout.observation_shape)
    generator = np.random.default_rng(0)
    whole = layout.dtype == np.uint8
    drawn = generator.integers(0, 2, shape) if whole else generator.standard_normal(shape)
    allowed = np.ones((tasks, rows, layout.num_actions), bool)
    return drawn.astype(layout.dtype), np.arange(tasks), allowed


def timed(
    forms: dict[str, Callable[..., Any]], inputs: Inputs, rounds: int, calls: int
) -> dict[str, list[float]]:
    """Return the milliseconds of a call of each form in each round, the forms by turns."""
    assert len(inputs) == len(NAMES)
    for form in forms.values():
        form(*inputs)
    found: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            started = time.perf_counter()
            for _ in range(calls):
                form(*inputs)
            found[name].append(1000.0 * (time.perf_counter() - started) / calls)
    return found


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=50, help="Calls per round and form.")
    parser.add_argument("--compared", type=int, default=10_000, help="Observations per task.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    configure_process()
    table = []
    for network in options.networks:
        # Else a network is taken for another size of the ones before it, and not compiled.
        torch.compiler.reset()
        learner, data = built(SETTINGS[network])
        with tempfile.TemporaryDirectory() as folder:
            written = export_policy(learner, data, folder, observations=options.compared)
            forms = forms_of(learner, Path(folder))
        same = {one.path.suffix[1:]: sum(p.same for p in one.parity) for one in written}
        compared = options.compared * len(data.task_infos)
        for rows in ROWS:
            inputs = inputs_of(data, rows)
            for form, times in timed(forms, inputs, options.rounds, options.calls).items():
                quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
                numbers = [f"{quartiles[place]:.4f}" for place in (1, 0, 2)]
                checked = (same[form], compared) if form in same else (None, None)
                table.append([network, len(data.task_infos), rows, form, *numbers, *checked])
                print(*table[-1], flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_csv(options.output, HEADER, table)
    print(f"{options.output}: {shlex.join(['python', *sys.argv])}")


if __name__ == "__main__":
    main()
