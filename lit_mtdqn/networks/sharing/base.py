"""What a sharing is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from lit_mtdqn.networks.torsos import LayeredTorso, Torso
from lit_mtdqn.types import Prediction, TaskInfos

TorsoFactory = Callable[[TaskInfos], Torso]


class Shared(NamedTuple):
    """What a sharing makes of observations.

    Attributes:
        layers: Outputs of the layers, first to last, each [S, B, its width].
        router: Weights over experts, [S, B, E], or None without experts.
    """

    layers: tuple[Tensor, ...]
    router: Tensor | None = None

    @property
    def features(self) -> Tensor:
        """What the head sees, [S, B, F]: the last layer."""
        return self.layers[-1]


class Sharing(nn.Module, ABC):
    """Base of all ways in which tasks share the layers below their heads.

    A sharing is built from the tasks and from what makes a torso. It computes all row groups
    together, without a loop over tasks: what one task has to itself is a row of a stack
    (`NamedRows`), looked up by `task`. Its forward pass reads no number of `task`, so that it can
    be mapped over groups. A subclass with `on_update_end(trainer, learner, clock)` is told of every
    update.

    Attributes:
        num_features: Size of the features.
        layer_sizes: Units or channels of each layer; none where the torso does not name its layers.
        one_head: Whether all tasks use one head.
    """

    num_features: int
    layer_sizes: tuple[int, ...] = ()
    one_head: bool = False

    def require_learning_rate(self, learning_rate: float) -> None:
        """Refuse a learning rate that the sharing could not stand; none unless overridden."""

    @abstractmethod
    def forward(self, observation: Tensor, task: Tensor) -> Shared:
        """Return the features of observations [S, B, *O] of tasks [S]."""

    def auxiliary(self, prediction: Prediction, task: Tensor) -> dict[str, Tensor]:
        """Return terms [] to add to the loss, weighted already.

        Args:
            prediction: Of the online network, with gradient.
            task: Task of each group, [S].
        """
        return {}

    def metrics(self, prediction: Prediction, task: Tensor) -> dict[str, Tensor]:
        """Return numbers [] worth logging; asked only when a row of metrics is due."""
        return {}


def sizes_of_layers(torso: Torso) -> tuple[int, ...]:
    """Return the units or channels of each layer; none if a torso does not name its layers."""
    return torso.layer_sizes if isinstance(torso, LayeredTorso) else ()


def require_layers(torso: Torso, what: str, instead: str) -> LayeredTorso:
    """Return a torso of layers, or complain of what needs them.

    Raises:
        TypeError: If the torso does not say what its layers are.
    """
    if isinstance(torso, LayeredTorso):
        return torso
    raise TypeError(
        f"`torso` must be a LayeredTorso for {what}, which acts between layers. "
        f"Got {type(torso).__name__}. Use {instead}, or derive the torso from LayeredTorso."
    )
