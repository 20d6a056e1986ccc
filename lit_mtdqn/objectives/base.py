"""What an auxiliary objective is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.td import TDLoss
from lit_mtdqn.types import Transition


class Objective(nn.Module, ABC):
    """Base of what a learner minimises besides its temporal-difference loss.

    Its parameters, such as further heads, learn along with the network's.

    Attributes:
        needs_target: Whether it needs the target of a temporal-difference loss.
    """

    needs_target = False

    def prepare(self, learner: Any) -> None:
        """Make what depends on more than tasks and network, before the optimiser is made for a fit.

        Nothing unless overridden; nothing is on the fit's device yet.
        """

    def bind(self, learner: Any) -> None:
        """Take what it needs of its learner, when a fit starts; nothing unless overridden."""

    @abstractmethod
    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        """Return weighted terms by name: [S, B] and [S] are balanced with their task, [] is added.

        Args:
            batch: Leading shape [S, B].
            td: What the temporal-difference loss has computed.
            target_network: Frozen; only read.
        """
