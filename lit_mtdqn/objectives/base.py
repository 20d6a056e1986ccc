"""What an auxiliary objective is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import Prediction, TaskInfo, Transition


@torch.no_grad()
def layer_sizes(network: QNetwork, tasks: Sequence[TaskInfo]) -> list[int]:
    """Return the number of features of each of a network's layers, first to last."""
    observation = torch.zeros(1, 1, *tasks[0].observation_shape)
    layers = network(observation, torch.zeros(1, dtype=torch.int64)).layers
    return [layer.shape[-1] for layer in layers]


class Objective(nn.Module, ABC):
    """Base of what a learner minimises besides its temporal-difference loss.

    Its parameters, such as further heads, learn along with the network's.

    Attributes:
        needs_target: Whether it needs the target of a temporal-difference loss.
        needs_values: Whether it takes the network's outputs for values, and not logits of a policy.
        needs_transitions: Whether it looks at single env steps, which whole returns do not show.
        observes: Tasks that do not learn whose observations it needs, as `Transition.observed`.
    """

    needs_target = False
    needs_values = False
    needs_transitions = False
    observes: Sequence[str] = ()

    def prepare(self, learner: Any) -> None:
        """Make what depends on more than tasks and network, before the optimiser is made for a fit.

        Nothing unless overridden; nothing is on the fit's device yet.
        """

    def bind(self, learner: Any) -> None:
        """Take what it needs of its learner, when a fit starts; nothing unless overridden."""

    def batch_metrics(self, batch: Transition, prediction: Prediction) -> dict[str, Tensor]:
        """Return what it has to say of a minibatch, [] by name; asked when a row is due.

        Args:
            batch: Leading shape [S, B].
            prediction: Of the network at `observation`.
        """
        return {}

    @abstractmethod
    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return weighted terms by name: [S, B] and [S] are balanced with their task, [] is added.

        Args:
            batch: Leading shape [S, B].
            td: What the temporal-difference loss has computed.
            target_network: Frozen; only read.
        """
