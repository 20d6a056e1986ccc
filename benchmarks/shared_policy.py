"""What the policy that tasks share is worth by itself, beside the tasks' own.

    python benchmarks/study.py benchmarks/multitask/driving_policies.yaml --keep
    python benchmarks/shared_policy.py

reads the runs that the study has kept and that have a `Prior`, plays every task's test episodes by
the prior's greedy actions, and writes `benchmarks/results/shared_policy.csv`: per cell, seed and
task the score of the task's own policy, of the shared one, and in how many of the states that this
one meets both act alike.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from pathlib import Path

import torch
from torch import Tensor

from lit_mtdqn.analysis.csv_file import write_csv
from lit_mtdqn.analysis.scores import mean_score
from lit_mtdqn.deployment import SavedRun, read_run
from lit_mtdqn.networks import Prior, QNetwork
from lit_mtdqn.process import configure_process
from lit_mtdqn.rollout import make_evaluation_env, play_episodes
from lit_mtdqn.rollout.seeding import TEST_SEED
from lit_mtdqn.types import ActionValues, require

RESULTS = Path(__file__).parent / "results" / "shared_policy.csv"
HEADER = ("cell", "seed", "task", "own", "shared", "alike")


class SharedPolicy:
    """Acts by a network's prior, and counts where the tasks' own policies would act alike."""

    def __init__(self, network: QNetwork, prior: Prior) -> None:
        self._network, self._prior = network, prior
        self.alike = self.states = 0

    @torch.no_grad()
    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return the prior's logits [S, N, A]."""
        logits = self._prior.action_values(observation, task)
        own = self._network.action_values(observation, task)
        self.alike += int((own.argmax(-1) == logits.argmax(-1)).sum())
        self.states += logits[..., 0].numel()
        return logits


def score(run: SavedRun, policy: ActionValues, task: str, episodes: int) -> float:
    """Return a policy's mean score over the episodes that a run's test plays."""
    spec, index = run.data.tasks[task], list(run.data.tasks).index(task)
    env = make_evaluation_env(task, spec, episodes, run.data.layout)
    try:
        played = play_episodes(
            policy,
            env,
            index,
            num_actions=run.data.task_infos[index].num_actions,
            epsilon=0.0,
            seed=TEST_SEED,
            max_steps=run.data.eval_max_steps,
        )
    finally:
        env.close()
    success = None if played.success is None else float(played.success.mean())
    return mean_score(float(played.episode_return.mean()), success, spec.score_range)


def rows_of(folder: Path, episodes: int) -> list[tuple[str, ...]]:
    """Return a row per task of a run, none if its network has no prior."""
    run = read_run(str(folder))
    network = run.policy.network
    if network.prior is None:
        return []
    cell, seed = folder.parent.name, folder.name.rpartition("_")[2]
    rows: list[tuple[str, ...]] = []
    for task in run.data.tasks:
        shared = SharedPolicy(network, network.prior)
        scores = [score(run, one, task, episodes) for one in (run.policy, shared)]
        alike = f"{shared.alike / shared.states:.3f}"
        rows.append((cell, seed, task, *(f"{one:.3f}" for one in scores), alike))
    return rows


def main() -> None:
    """Play and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/studies/driving_policies"))
    parser.add_argument("--episodes", type=int, default=500)
    given = parser.parse_args()
    configure_process()
    folders = sorted(path.parent for path in given.runs.glob("*/*/config.yaml"))
    rows = [row for folder in folders for row in rows_of(folder, given.episodes)]
    require(bool(rows), "--runs", "hold runs with a prior, kept by study.py", str(given.runs))
    write_csv(RESULTS, HEADER, rows)
    for cell in dict.fromkeys(row[0] for row in rows):
        own, shared = (
            statistics.mean(float(row[place]) for row in rows if row[0] == cell) for place in (3, 4)
        )
        print(
            f"{cell}: mean score of the tasks' own policies {own:.3f}, of the shared {shared:.3f}"
        )
    print(f"{RESULTS}: {shlex.join(['python', *sys.argv])}")


if __name__ == "__main__":
    main()
