"""What is done by hand here, over the time of what a library has for it.

    python benchmarks/speed_ups.py

does either by turns, on the networks and rows of `configs/driving/three_tasks.yaml` or on images
like MinAtar's, and writes `benchmarks/results/speed_ups.csv`: microseconds of ours and of the
library's, medians over rounds, and the median and the quartiles of their ratio. Both ways have
equal results.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from device_resident import SUITES
from phase_times import phase_times

from lit_mtdqn import DQN, RolloutDataModule
from lit_mtdqn.algorithms import ValueLearner
from lit_mtdqn.functional.parameters import clip_gradients_
from lit_mtdqn.networks.small_convolution import SmallConvolution
from lit_mtdqn.process import configure_process
from lit_mtdqn.replay import Replay
from lit_mtdqn.replay.buffer import _ColumnWrites

Work = Callable[[], object]
# Of a phase: updates and rows of each, env steps.
UPDATES, BATCH_SIZE, ENV_STEPS, FEATURES = 32, 96, 512, 12
RESULTS = Path(__file__).parent / "results" / "speed_ups.csv"


def learner() -> DQN:
    """Return one with gradients."""
    data = RolloutDataModule(dict(SUITES["driving"]), total_env_steps=10_000)
    model = DQN(data.task_infos)
    for parameter in model.network.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def rows(count: int) -> dict[str, Any]:
    """Return transitions as a phase writes them."""
    draw = np.random.default_rng(0)
    observation = draw.random((2, count, FEATURES), dtype=np.float32)
    return {
        "observation": observation[0],
        "action": draw.integers(0, 5, count),
        "reward": draw.random(count, dtype=np.float32),
        "discount": draw.random(count, dtype=np.float32),
        "next_observation": observation[1],
    }


def clipping() -> tuple[Work, Work]:
    """Clip gradients that are short enough, as most are."""
    parameters = list(learner().network.parameters())
    return (
        lambda: clip_gradients_(parameters, 1e9),
        lambda: torch.nn.utils.clip_grad_norm_(parameters, 1e9),
    )


def dropping() -> tuple[Work, Work]:
    """Drop gradients, which either way puts back before."""
    model = learner()
    optimizer = torch.optim.Adam(model.network.parameters())
    parameters = list(model.network.parameters())
    kept = [parameter.grad for parameter in parameters]

    def restore() -> None:
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient

    def ours() -> None:
        restore()
        for parameter in parameters:
            parameter.grad = None

    def library() -> None:
        restore()
        optimizer.zero_grad()

    return ours, library


def filled() -> Replay:
    """Return a replay that has room for no more."""
    replay = Replay(8 * ENV_STEPS, seed=0)
    for _ in range(8):
        replay.extend(rows(ENV_STEPS))
    return replay


def writing() -> tuple[Work, Work]:
    """Write the rows of a phase."""
    replay, other, new = filled(), filled(), rows(ENV_STEPS)
    storage: Any = other._storage
    storage.set = super(_ColumnWrites, storage).set
    return lambda: replay.extend(new), lambda: other.extend(new)


def drawing() -> tuple[Work, Work]:
    """Draw the minibatches of a phase: at once, and one by one from torchrl's buffer."""
    replay = filled()
    return (
        lambda: replay.sample(UPDATES * BATCH_SIZE),
        lambda: [replay._buffer.sample(BATCH_SIZE) for _ in range(UPDATES)],
    )


def convolving(rows: int) -> tuple[Work, Work]:
    """Learn from images of MinAtar by its network's convolution."""
    (channels, *shape), out, kernel = (4, 10, 10), 16, 3
    images = torch.rand(rows, channels, *shape).round()

    def learn(module: torch.nn.Module) -> None:
        module.zero_grad()
        torch.autograd.backward(module(images).relu().square().mean())

    ours = SmallConvolution(channels, out, kernel, 1, shape)
    library = torch.nn.Conv2d(channels, out, kernel)
    return lambda: learn(ours), lambda: learn(library)


WORKS: dict[str, Callable[[], tuple[Work, Work]]] = {
    "clip gradients": clipping,
    "drop gradients": dropping,
    "write a phase": writing,
    "draw a phase": drawing,
    "convolve 32 small images": partial(convolving, 32),
    "convolve 128 small images": partial(convolving, 128),
}


def by_turns(ours: Work, library: Work, rounds: int) -> list[tuple[float, float]]:
    """Return the microseconds of both, round by round."""
    return [(_microseconds(ours), _microseconds(library)) for _ in range(rounds)]


def updates(directly: bool, phases: int) -> float:
    """Return the microseconds of an update, with Lightning's dispatch or past it."""
    data = RolloutDataModule(
        dict(SUITES["driving"]),
        num_envs=16,
        phase_vector_steps=ENV_STEPS // 16,
        replay_ratio=UPDATES / ENV_STEPS,
        batch_size=BATCH_SIZE,
        total_env_steps=2**50,
        evaluate_every_env_steps=2**49,
        seed=0,
    )
    torch.manual_seed(0)
    decide = ValueLearner._may_step_directly if directly else lambda _: False
    with patch.object(ValueLearner, "_may_step_directly", decide):
        return 1e6 * phase_times(DQN(data.task_infos), data, 2, phases).learning / UPDATES


def row_of(pairs: list[tuple[float, float]]) -> list[str]:
    """Return medians, and the median and the quartiles of ratios."""
    ours, library = zip(*pairs, strict=True)
    ratios = np.quantile([own / other for own, other in pairs], [0.5, 0.25, 0.75])
    return [
        f"{statistics.median(ours):.1f}",
        f"{statistics.median(library):.1f}",
        *(f"{ratio:.3f}" for ratio in ratios),
    ]


def _microseconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7, help="of whole updates")
    given = parser.parse_args()
    configure_process()
    with RESULTS.open("w", newline="") as file:
        file.write(f"# python {shlex.join(sys.argv)}\n")
        writer = csv.writer(file)
        writer.writerow(["what", "ours_us", "library_us", "ratio", "ratio_25", "ratio_75"])
        for name, make in WORKS.items():
            both = make()
            by_turns(*both, given.rounds // 10)
            writer.writerow([name, *row_of(by_turns(*both, given.rounds))])
        pairs = [(updates(True, 8), updates(False, 8)) for _ in range(given.repeats)]
        writer.writerow(["step past the dispatch", *row_of(pairs)])
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
