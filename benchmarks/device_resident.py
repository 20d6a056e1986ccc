"""How fast a run plays and learns where it stays on a device, and where environments are arrays.

    python benchmarks/device_resident.py --device cuda

lets a learner on that device play and learn the driving tasks and contextual CartPole, with 16 to
4096 copies of each task, and writes `benchmarks/results/device_resident_<device>.csv`: per suite,
number of copies and kind of environment the env steps of all tasks per second of playing, folding,
remembering and sampling, and the updates per second of learning. Replays are on the device in
either case. Both kinds take turns, repeat by repeat; a row is the median over the repeats of the
median over phases, with the lowest and the highest repeat.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from phase_times import phase_times

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.process import configure_process

CONTEXTS: dict[str, dict[str, float]] = {
    "nominal": {},
    "long_pole": {"length": 1.5},
    "heavy_cart": {"cart_mass": 5.0},
    "weak_motor": {"force": 3.0},
}
DRIVING = {
    "lane_keeping": "LaneKeeping",
    "pedestrian": "Pedestrian",
    "traffic_light": "TrafficLight",
}
SUITES = {
    "driving": {
        name: TaskSpec(env=f"lit_mtdqn/{env}-v0", gamma=0.98, n_step=3, success_key="success")
        for name, env in DRIVING.items()
    },
    "contextual_cartpole": {
        name: TaskSpec(
            env="lit_mtdqn/ContextualCartPole-v0",
            kwargs={"context": context},
            n_step=3,
            success_key="success",
        )
        for name, context in CONTEXTS.items()
    },
}
VECTOR_STEPS, UPDATES, BATCH_SIZE, CAPACITY = 32, 16, 256, 1_000_000
KINDS = {"arrays": False, "tensors": True}


class Rates(NamedTuple):
    """Env steps of all tasks per second of playing, and updates per second of learning."""

    env_steps: float
    updates: float


def measure(suite: str, envs: int, resident: bool, device: str, skip: int, phases: int) -> Rates:
    """Return the rates of one run."""
    tasks = SUITES[suite]
    data = RolloutDataModule(
        dict(tasks),
        num_envs=envs,
        phase_vector_steps=VECTOR_STEPS,
        replay_ratio=UPDATES / (VECTOR_STEPS * envs),
        batch_size=BATCH_SIZE,
        replay_capacity=min(CAPACITY, 32 * VECTOR_STEPS * envs),
        replay_storage="device",
        device_resident=resident,
        warmup_env_steps=1,
        total_env_steps=2**50,
        evaluate_every_env_steps=2**49,
        seed=0,
    )
    torch.manual_seed(0)
    times = phase_times(DQN(data.task_infos), data, skip, phases, device)
    return Rates(VECTOR_STEPS * envs * len(tasks) / times.playing, UPDATES / times.learning)


def summary(rates: list[Rates]) -> list[str]:
    """Return median, lowest and highest of each rate."""
    columns = zip(*rates, strict=True)
    chosen = [(statistics.median(column), min(column), max(column)) for column in columns]
    return [f"{number:.0f}" for numbers in chosen for number in numbers]


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--envs", type=int, nargs="+", default=[16, 64, 256, 1024, 4096])
    parser.add_argument("--suites", nargs="+", choices=SUITES, default=list(SUITES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--phases", type=int, default=20)
    parser.add_argument("--skip", type=int, default=5, help="phases of warm-up, not counted")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch on the CPU")
    found = parser.parse_args()
    configure_process(found.threads)
    rates = [
        f"{rate}{suffix}"
        for rate in ("env_steps_per_s", "updates_per_s")
        for suffix in ("", "_lowest", "_highest")
    ]
    path = Path(__file__).parent / "results" / f"device_resident_{found.device}.csv"
    name = torch.cuda.get_device_name() if found.device == "cuda" else "cpu"
    with path.open("w", newline="") as file:
        file.write(f"# python {shlex.join(sys.argv)}  (on {name})\n")
        writer = csv.writer(file)
        writer.writerow(["suite", "envs_per_task", "environments", *rates])
        for suite in found.suites:
            for envs in found.envs:
                taken: dict[str, list[Rates]] = {kind: [] for kind in KINDS}
                for _ in range(found.repeats):
                    for kind, resident in KINDS.items():
                        numbers = (found.skip, found.phases)
                        taken[kind].append(measure(suite, envs, resident, found.device, *numbers))
                for kind in KINDS:
                    row = [suite, envs, kind, *summary(taken[kind])]
                    writer.writerow(row)
                    file.flush()
                    print(*row)


if __name__ == "__main__":
    main()
