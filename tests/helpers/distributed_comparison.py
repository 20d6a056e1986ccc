"""Tasks compared by two ranks that have unlike ones: `python distributed_comparison.py FOLDER`.

Each rank has a part of the row groups; `compared` alone is one process that has them all.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from helpers.batches import random_batch
from helpers.distributed_balancing import INFOS, NETWORK
from helpers.distributed_learners import Given
from helpers.runs import quiet_trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy

from lit_mtdqn import MultiTaskDQN, TaskInfo
from lit_mtdqn.callbacks import GradientAgreement, TaskAffinity
from lit_mtdqn.types import Transition

TASKS = [*INFOS, TaskInfo(name="third", observation_shape=(3,), num_actions=3)]
# Tasks of each rank's groups: as many on both ranks, and one fewer on the second.
GROUPS = {"as_many": ([0, 1], [1, 2]), "fewer": ([0, 1], [1])}


class Compares(Callback):
    """Compares the tasks of a minibatch when training starts.

    Args:
        groups: Tasks of the groups of each rank.
    """

    def __init__(self, groups: tuple[list[int], list[int]]) -> None:
        self.groups = groups
        self.found: dict[str, float] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        batch = self._batch(trainer.global_rank, trainer.world_size)
        for kind in (GradientAgreement(), TaskAffinity(share=1e-3)):
            found = kind.metrics(pl_module, batch)
            self.found |= {name: float(value) for name, value in found.items()}

    def _batch(self, rank: int, ranks: int) -> Transition:
        """Return a rank's groups of the same minibatch."""
        of_first, of_second = self.groups
        batch = random_batch(TASKS, groups=[*of_first, *of_second])
        if ranks == 1:
            return batch
        own = slice(len(of_first), None) if rank else slice(len(of_first))
        columns = {name: getattr(batch, name)[own] for name in Transition._fields[:-2]}
        return batch._replace(**columns)


def compared(name: str, **options: Any) -> dict[str, float]:
    """Return what two callbacks say of the tasks."""
    torch.manual_seed(0)
    model, compares = MultiTaskDQN(TASKS, NETWORK), Compares(GROUPS[name])
    trainer = quiet_trainer(compares, max_epochs=1, use_distributed_sampler=False, **options)
    trainer.fit(model, Given(model))
    return compares.found


if __name__ == "__main__":
    # Ranks that wait for one another for ever end by an error.
    strategies = {name: DDPStrategy(timeout=timedelta(minutes=1)) for name in GROUPS}
    ends = {name: compared(name, devices=2, strategy=own) for name, own in strategies.items()}
    torch.save(ends, Path(sys.argv[1]) / f"rank_{torch.distributed.get_rank()}.pt")
