r"""How many updates a second networks of several sizes make: by precision, and compiled.

    python benchmarks/update_speed.py
    python benchmarks/update_speed.py --device cuda \
      --ways 32-true bf16-mixed 16-mixed 32-true+default 32-true+reduce-overhead

A way is a precision of the Trainer; `+reduce-overhead` behind it is a mode of `CompiledUpdates`,
`@2` the number of PyTorch's threads on a CPU, 1 unless it is said. Ways take turns, repeat by
repeat, and go to `benchmarks/results/update_speed_<device>.csv`: env steps of all tasks per second
of playing and updates per second of learning, medians over the repeats of medians over phases with
the lowest and the highest repeat, updates as a ratio to those of the first way in the same repeat,
and on a GPU its memory. The names of networks tell their units.
"""

from __future__ import annotations

import argparse
import csv
import platform
import shlex
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from device_resident import SUITES
from phase_times import phase_times

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import CompiledUpdates
from lit_mtdqn.networks import MinAtarTorso, MLPTorso, QNetwork
from lit_mtdqn.process import configure_process

BREAKOUT = {"breakout": TaskSpec(env="MinAtar/Breakout-v1", n_step=3)}
NETWORKS: dict[str, tuple[dict[str, TaskSpec], Any]] = {
    **{
        f"{suite}_{width}": (SUITES[suite], partial(MLPTorso, hidden=(width, width)))
        for suite, width in (
            ("driving", 128),
            ("driving", 512),
            ("driving", 1024),
            ("contextual_cartpole", 128),
        )
    },
    "minatar_breakout": (BREAKOUT, MinAtarTorso),
}
NUM_ENVS, VECTOR_STEPS, UPDATES = 16, 32, 32


class Speed(NamedTuple):
    """Env steps of all tasks and updates per second; bytes of a GPU, 0 elsewhere."""

    env_steps: float
    updates: float
    memory: int


def measure(network: str, way: str, given: argparse.Namespace) -> Speed:
    """Return the speed of one run."""
    tasks, torso = NETWORKS[network]
    computed, _, threads = way.partition("@")
    precision, _, compiled = computed.partition("+")
    mode: Any = compiled
    torch.set_num_threads(int(threads or 1))
    data = RolloutDataModule(
        dict(tasks),
        num_envs=NUM_ENVS,
        phase_vector_steps=VECTOR_STEPS,
        replay_ratio=UPDATES / (VECTOR_STEPS * NUM_ENVS),
        batch_size=given.batch_size,
        replay_storage="device" if given.device == "cuda" else "ram",
        warmup_env_steps=given.batch_size,
        total_env_steps=2**50,
        evaluate_every_env_steps=2**49,
        seed=0,
    )
    torch.manual_seed(0)
    model = DQN(data.task_infos, partial(QNetwork, torso=torso))
    compiling: Any = [CompiledUpdates(mode)] if mode else []
    on_gpu = given.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    numbers = (given.skip, given.phases, given.device)
    times = phase_times(model, data, *numbers, precision, compiling)
    memory = torch.cuda.max_memory_allocated() if on_gpu else 0
    env_steps = VECTOR_STEPS * NUM_ENVS * len(tasks)
    return Speed(env_steps / times.playing, UPDATES / times.learning, memory)


def summary(speeds: list[Speed], first: list[Speed]) -> list[str]:
    """Return the cells of a row: medians, each with the lowest and the highest repeat."""
    shares = [own.updates / other.updates for own, other in zip(speeds, first, strict=True)]
    columns = [[own.env_steps for own in speeds], [own.updates for own in speeds]]
    cells = [f"{f(column):.0f}" for column in columns for f in (statistics.median, min, max)]
    ratios = [f"{f(shares):.3f}" for f in (statistics.median, min, max)]
    return [*cells, *ratios, f"{max(own.memory for own in speeds) / 2**20:.0f}"]


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--ways", nargs="+", default=["32-true", "32-true@2", "bf16-mixed"])
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--phases", type=int, default=4)
    parser.add_argument("--skip", type=int, default=1, help="phases of warm-up, not counted")
    given = parser.parse_args()
    configure_process()
    on = torch.cuda.get_device_name() if given.device == "cuda" else platform.machine()
    columns = [
        f"{name}{suffix}"
        for name in ("env_steps_per_s", "updates_per_s", "ratio")
        for suffix in ("", "_lowest", "_highest")
    ]
    path = Path(__file__).parent / "results" / f"update_speed_{given.device}.csv"
    with path.open("w", newline="") as file:
        file.write(f"# python {shlex.join(sys.argv)}  (on {on}, torch {torch.__version__})\n")
        writer = csv.writer(file)
        writer.writerow(["network", "way", *columns, "gpu_megabytes"])
        for network in given.networks:
            taken: dict[str, list[Speed]] = {way: [] for way in given.ways}
            for _ in range(given.repeats):
                for way in given.ways:
                    taken[way].append(measure(network, way, given))
            for way, speeds in taken.items():
                row = [network, way, *summary(speeds, taken[given.ways[0]])]
                writer.writerow(row)
                file.flush()
                print(*row)


if __name__ == "__main__":
    main()
