"""Updates of balancers and learners on given batches: `python distributed_learners.py FOLDER`.

Two ranks have half of the rows each; `learned` alone is one process that has them all.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from helpers.batches import random_batch
from helpers.distributed_balancing import INFOS, NAMES, NETWORK, UPDATES, GivenData, trained
from helpers.runs import quiet_trainer
from helpers.sources import save_run
from torch import Tensor

from lit_mtdqn import PQN, Adam, MultiTaskDQN, PolicyDistillation, TaskInfo
from lit_mtdqn.callbacks import NetworkHealth
from lit_mtdqn.networks import MLPTorso, QNetwork, SuccessorHead
from lit_mtdqn.objectives import Guidance, ImportanceWeights, Match, RewardRegression, SuccessorTD
from lit_mtdqn.types import Phase, Transition

OPTIONS: dict[str, Any] = {"optimizer": partial(Adam, lr=0.01), "max_grad_norm": 0.2}
ALIKE = [INFOS[0], replace(INFOS[1], num_actions=4)]
ONE_HEAD = [ALIKE[0], replace(ALIKE[1], head="wide")]
LENGTH, ENVS = 5, 4


def _teacher(folder: Path) -> str:
    """Leave a run of another network; each rank has its own, the same as the other's."""
    torch.manual_seed(1)
    return save_run(folder / "teacher", MultiTaskDQN(INFOS, NETWORK))


def _importance(folder: Path) -> MultiTaskDQN:
    weights: Any = partial(ImportanceWeights, sources={"narrow": "wide"})
    return MultiTaskDQN(ONE_HEAD, NETWORK, objectives=[weights], scale=None, **OPTIONS)


def _successor(folder: Path) -> MultiTaskDQN:
    torso = partial(MLPTorso, hidden=[6, 5])
    head: Any = partial(SuccessorHead, cumulants=2, init_scale=1.0)
    network = partial(QNetwork, torso=torso, head=head)
    objectives = [RewardRegression]
    options = {**OPTIONS, "objective": SuccessorTD, "objectives": objectives, "scale": None}
    return MultiTaskDQN(ALIKE, network, **options)


def _student(folder: Path) -> MultiTaskDQN:
    # Relative temperatures follow the median of the rows at hand.
    match: Any = partial(Match, kind="value_kl", relative=False)
    teachers = dict.fromkeys([info.name for info in INFOS], _teacher(folder))
    return PolicyDistillation(INFOS, teachers, None, NETWORK, match, **OPTIONS)


def _guided(folder: Path) -> MultiTaskDQN:
    objective: Any = partial(Guidance, teachers={"wide": _teacher(folder)}, kind="mse")
    return MultiTaskDQN(INFOS, NETWORK, objectives=[objective], **OPTIONS)


def _pqn(folder: Path) -> MultiTaskDQN:
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=[6, 5], layer_norm=True))
    return PQN(INFOS, network, **OPTIONS)


LEARNERS: dict[str, Callable[[Path], MultiTaskDQN]] = {
    "importance": _importance,
    "successor": _successor,
    "student": _student,
    "guided": _guided,
    "pqn": _pqn,
}


def _minibatches(tasks: list[TaskInfo], rank: int, ranks: int) -> Phase:
    """Return a rank's rows of the same minibatches, with cumulants."""
    batches = [random_batch(tasks, 8, seed) for seed in range(UPDATES)]
    own = slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)
    columns: dict[str, Any] = {}
    for name in Transition._fields[:-2]:
        column = torch.stack([getattr(batch, name) for batch in batches])
        columns[name] = column if name == "task" else column[:, :, own].clone()
    shape = (UPDATES, len(tasks), 8, 2)
    cumulants = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    return Phase(Transition(**columns, extra={"cumulants": cumulants[:, :, own].clone()}), {})


def _fragments(tasks: list[TaskInfo], rank: int, ranks: int) -> Phase:
    """Return what a rank's environments have played, and its share of each minibatch."""
    played = random_batch(tasks, LENGTH * ENVS, 0)
    weight = torch.ones(LENGTH, len(tasks), ENVS)
    per_rank = ENVS // ranks
    own = slice(rank * per_rank, (rank + 1) * per_rank)
    columns: dict[str, Any] = {"task": played.task}
    for name in Transition._fields[:-3]:
        column = getattr(played, name)
        by_time = column.view(len(tasks), LENGTH, ENVS, *column.shape[2:]).transpose(0, 1)
        columns[name] = by_time[:, :, own].clone()
    columns["weight"] = weight[:, :, own].clone()
    # Every minibatch has as many rows of each environment; those of all ranks side by side.
    generator = torch.Generator().manual_seed(3)
    time = torch.randint(LENGTH, (UPDATES, len(tasks), ENVS), generator=generator)[:, :, own]
    return Phase(Transition(**columns, extra={}), {}, {}, time * per_rank + torch.arange(per_rank))


class Given(GivenData):
    """Has phases of given tasks and no environments."""

    tasks: dict[str, Any] = {}  # noqa: RUF012  never written to

    def __init__(self, model: MultiTaskDQN) -> None:
        super().__init__()
        self.task_infos, self.keeps_replays = model.tasks, model.needs_replays

    def phase(self, rank: int, ranks: int) -> Phase:
        """Return a rank's share of the phase."""
        make = _minibatches if self.keeps_replays else _fragments
        return make(self.task_infos, rank, ranks)


def learned(name: str, **options: Any) -> dict[str, Tensor]:
    """Return what a learner's checkpoint holds after some updates, and what was logged by then."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = LEARNERS[name](Path(folder))
        trainer = quiet_trainer(
            NetworkHealth(),
            max_epochs=1,
            log_every_n_steps=1,
            use_distributed_sampler=False,
            **options,
        )
        trainer.fit(model, Given(model))
    seen = {f"metrics/{key}": value for key, value in trainer.callback_metrics.items()}
    found = model.state_dict()
    return {**{k: v for k, v in found.items() if isinstance(v, Tensor)}, **seen}


if __name__ == "__main__":
    ranks: dict[str, Any] = {"devices": 2, "strategy": "ddp"}
    ends = {name: trained(name, **ranks) for name in NAMES}
    ends |= {name: learned(name, **ranks) for name in LEARNERS}
    torch.save(ends, Path(sys.argv[1]) / f"rank_{torch.distributed.get_rank()}.pt")
