"""What a row of training metrics says; computed only when a row is due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lit_mtdqn.functional.masking import mask_actions
from lit_mtdqn.functional.policies import softmax_policy
from lit_mtdqn.functional.td import action_gap
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import Losses, Prediction, TaskInfo, Transition


class Learner(Protocol):
    """What diagnostics ask of a learner."""

    network: QNetwork
    tasks: list[TaskInfo]
    loss_name: str

    @property
    def predicts_values(self) -> bool:
        """Whether the network's outputs are action values, and not logits of a policy."""

    def raw_values(self, values: Tensor, task: Tensor) -> Tensor:
        """Return values [S, B, A] of the network in the unit of rewards."""

    def batch_metrics(self, batch: Transition, prediction: Prediction) -> dict[str, Tensor]:
        """Return further numbers about a minibatch."""


def phase_metrics(
    learner: Learner,
    batches: Sequence[Transition],
    losses: Sequence[Losses],
    grad_norm: Tensor | None,
) -> dict[str, Tensor]:
    """Return the training metrics of a phase, by name.

    Losses are means over the phase, in the unit of the networks; values and gaps come from its last
    minibatch, in that of raw rewards. Of a policy there is the entropy in their place, in nats.

    Args:
        learner: The learner.
        batches: The K minibatches.
        losses: The losses of the K updates.
        grad_norm: Norm of the last update's gradient before clipping, if it was measured.
    """
    metrics = _row_losses(learner, batches, losses)
    metrics.update(_output_metrics(learner, batches[-1]))
    for name, tensor in {**losses[-1].auxiliary, **losses[-1].metrics}.items():
        metrics[f"train/{name}"] = tensor.mean()
    if grad_norm is not None:
        metrics["train/grad_norm"] = grad_norm
    return metrics


def means_by_name(rows: Sequence[Mapping[str, float]]) -> dict[str, Tensor]:
    """Return the mean of each metric over the rows that have it, in one order everywhere."""
    names = sorted({name for row in rows for name in row})
    found = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: torch.tensor(sum(values) / len(values)) for name, values in found.items()}


def _row_losses(
    learner: Learner, batches: Sequence[Transition], losses: Sequence[Losses]
) -> dict[str, Tensor]:
    name = f"train/{learner.loss_name}"
    loss = torch.stack([entry.td.detach().mean(-1) for entry in losses])
    task = torch.stack([batch.task for batch in batches])
    named = {
        f"{name}/{info.name}": loss[task == index].mean()
        for index, info in enumerate(learner.tasks)
        if bool((task == index).any())
    }
    return {**named, name: loss.mean()}


@torch.no_grad()
def _output_metrics(learner: Learner, batch: Transition) -> dict[str, Tensor]:
    network = learner.network
    prediction = network(batch.observation, batch.task)
    mask = network.allowed_actions(batch.task, batch.extra.get("action_mask"))
    if learner.predicts_values:
        q_values = learner.raw_values(network.q_values(prediction).float(), batch.task)
        by_row = {
            "q_mean": mask_actions(q_values, mask).amax(-1),
            "action_gap": action_gap(q_values, mask),
        }
    else:
        policy = softmax_policy(network.preferences(prediction), 1.0, mask)
        by_row = {"policy_entropy": torch.special.entr(policy).sum(-1)}
    found = {**network.metrics(prediction, batch.task), **learner.batch_metrics(batch, prediction)}
    metrics = {f"train/{name}": value for name, value in found.items()}
    for index in sorted(set(batch.task.tolist())):
        groups, name = batch.task == index, learner.tasks[index].name
        metrics |= {f"train/{kind}/{name}": rows[groups].mean() for kind, rows in by_row.items()}
    return metrics
