"""Updates of every balancer on given batches, by two ranks or by one process.

Some ways of sharing are among them, under one of the balancers, and parts that are held back.
Two ranks have half of the rows each; `trained` alone is one process that has them all.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import torch
from helpers.batches import random_batch
from helpers.runs import quiet_trainer
from helpers.sources import save_run
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torchjd import aggregation, scalarization

from lit_mtdqn import Adam, MultiTaskDQN, TaskInfo
from lit_mtdqn.balancing import (
    Aggregated,
    GradNorm,
    IndependentSteps,
    Scalarised,
    SourceGradients,
)
from lit_mtdqn.callbacks import GradientAgreement, PartLearningRates, TaskAffinity
from lit_mtdqn.networks import Columns, Experts, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import Anchor, DeepSupervision
from lit_mtdqn.types import Clock, Feedback, Phase, Transition

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2, weight=3.0),
]
NETWORK = partial(
    QNetwork, torso=partial(MLPTorso, hidden=[6, 5]), head=partial(LinearHead, init_scale=1.0)
)
UPDATES, ROWS = 6, 8
BALANCERS: dict[str, Any] = {
    "equal": None,
    "pcgrad": partial(Aggregated, aggregator=aggregation.PCGrad),
    "mgda": partial(Aggregated, aggregator=aggregation.MGDA),
    "aligned_mtl": partial(Aggregated, aggregator=aggregation.AlignedMTL),
    "uncertainty": partial(Scalarised, scalarizer=scalarization.UW),
    # At a low temperature, because the losses of a few updates fall much alike.
    "dwa": partial(
        Scalarised, scalarizer=partial(scalarization.DWA, temperature=0.1), step_every_n_updates=2
    ),
    "famo": partial(Scalarised, scalarizer=scalarization.FAMO),
    "grad_norm": GradNorm,
    "independent": IndependentSteps,
    "imtl_g": partial(Aggregated, aggregator=aggregation.IMTLG),
    "source_gradients": partial(SourceGradients, gate="cosine"),
}
# With what they are solved by, in the extra `solvers`.
SOLVED: dict[str, tuple[str, Any]] = {
    "cagrad": ("cvxpy", partial(aggregation.CAGrad, c=0.5)),
    "nash_mtl": ("ecos", aggregation.NashMTL),
    "upgrad": ("quadprog", aggregation.UPGrad),
}
BALANCERS.update(
    (name, partial(Aggregated, aggregator=aggregator))
    for name, (solver, aggregator) in SOLVED.items()
    if find_spec(solver) is not None
)
# Ways of sharing under which gradients are aggregated.
SHARINGS: dict[str, Any] = {
    # Each rank balances the use of experts in its own rows: products of means are not linear.
    "experts": partial(Experts, num_experts=2, balance_weight=0.0),
    "cross_stitch": partial(Columns, coupling="cross_stitch"),
}
# Parts that are held back, some rows of stacks among them, under equal weights and one balancer.
HELD = {"torso.layers.0": 0.0, "torso.layers.2.bias": 0.5, "head.values.wide": 0.0}
NAMES = (*BALANCERS, *SHARINGS, "held", "independent_held")


def _phase(rank: int, world_size: int) -> Phase:
    """Return a rank's rows of the same minibatches."""
    batches = [random_batch(INFOS, ROWS, seed) for seed in range(UPDATES)]
    share = slice(rank * ROWS // world_size, (rank + 1) * ROWS // world_size)
    columns: dict[str, Any] = {}
    for name in Transition._fields[:-2]:
        column = torch.stack([getattr(batch, name) for batch in batches])
        columns[name] = column if name == "task" else column[:, :, share].clone()
    return Phase(Transition(**columns, extra={}), {})


class OnePhase(IterableDataset[Phase]):
    """Yields the rows of a rank."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase

    def __iter__(self) -> Iterator[Phase]:
        yield self.phase

    def __len__(self) -> int:
        return 1


class GivenData(lightning.LightningDataModule):
    """Has no environments."""

    task_infos = INFOS
    is_finished = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.exploration = type("Exploration", (), {"epsilon": 0.0})()

    def phase(self, rank: int, ranks: int) -> Phase:
        """Return a rank's share of the phase."""
        return _phase(rank, ranks)

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        data = OnePhase(self.phase(self.trainer.global_rank, self.trainer.world_size))
        return DataLoader(data, batch_size=None, collate_fn=lambda phase: phase)

    def on_feedback(self, feedback: Feedback) -> None:
        """Forget it."""

    def transfer_batch_to_device(self, batch: Phase, device: torch.device, _: int) -> Phase:
        return batch.to(device)


def trained(name: str, **options: Any) -> dict[str, Tensor]:
    """Return all parameters after some updates, and what callbacks saw of the tasks by then."""
    torch.manual_seed(0)
    network = partial(NETWORK, sharing=SHARINGS.get(name))
    # Each rank has an earlier run of its own, the same as the others'.
    folder = tempfile.mkdtemp()
    earlier = save_run(Path(folder) / "earlier", MultiTaskDQN(INFOS, network))
    anchor: Any = partial(Anchor, sources=[earlier], importance="equal", strength=0.1)
    balancer = "pcgrad" if name in SHARINGS else name.removesuffix("_held")
    model = MultiTaskDQN(
        INFOS,
        network,
        balancer=BALANCERS.get(balancer),
        objectives=[DeepSupervision, anchor],
        optimizer=partial(Adam, lr=0.01),
        max_grad_norm=0.2,
    )
    held = [PartLearningRates(HELD)] if name.endswith("held") else []
    callbacks = GradientAgreement(), TaskAffinity(), *held
    trainer = quiet_trainer(
        *callbacks, max_epochs=1, log_every_n_steps=1, use_distributed_sampler=False, **options
    )
    trainer.fit(model, GivenData())
    shutil.rmtree(folder)
    seen = trainer.callback_metrics.items()
    return {
        **{key: parameter.detach() for key, parameter in model.named_parameters()},
        **{key: value for key, value in seen if key.startswith(("gradients", "affinity"))},
    }
