"""What a run has learned, without that which learned it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.algorithms.factories import from_plain
from lit_mtdqn.algorithms.loading import build_to_hold
from lit_mtdqn.analysis.checkpoints import find_checkpoint, online_weights, read_checkpoint
from lit_mtdqn.functional.parameters import freeze_
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.match import says_values
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import as_task_infos


class SavedPolicy:
    """The network of a checkpoint with its scale, frozen.

    Args:
        source: Checkpoint, or folder of a run, whose last network is taken.
        name: What the user calls it, for complaints.
        own: Classes that it may be built of beside those of this package and of PyTorch, by their
            full names.

    Attributes:
        folder: Of its run.
        tasks: The tasks that it knows.
        predicts_values: Whether its outputs are values, not logits of a policy.

    Raises:
        ValueError: If it is no checkpoint of this package.
        TypeError: If its network is built of other parts.
    """

    def __init__(self, source: str, name: str, own: Mapping[str, type] | None = None) -> None:
        path = find_checkpoint([source], "last", name)
        self.folder = str(path.parent.parent)
        saved = read_checkpoint(path, name)
        given = saved["hyper_parameters"]
        self.tasks = as_task_infos(given["tasks"])
        self.predicts_values = says_values(given)
        factory = _factory(given["network"], "network", own)
        weights = online_weights(saved["state_dict"])
        self.network: QNetwork = build_to_hold(lambda: factory(self.tasks), weights, name, path)
        freeze_(self.network)
        self.scale: Scale | None = None
        if given.get("scale") is not None:
            self.scale = _factory(given["scale"], "scale", own)(self.tasks)
            assert self.scale is not None
            self.scale.bind(self.network)
            self.scale.set_extra_state(saved["state_dict"]["scale._extra_state"])

    def to(self, device: torch.device) -> None:
        """Move it to a device."""
        self.network.to(device)
        if self.scale is not None:
            self.scale.to(device)

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        """Return raw values [S, N, A] of its own tasks [S]."""
        values = self.network.action_values(observation, task)
        return values if self.scale is None else self.scale.restored(values, task)

    @torch.no_grad()
    def layers(self, observation: Tensor, task: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of its layers for observations of its own tasks [S]."""
        return self.network.shaped_layers(self.network(observation, task))


def _factory(plain: Any, name: str, own: Mapping[str, type] | None) -> Callable[..., Any]:
    factory: Callable[..., Any] = from_plain(plain, name, own)
    return factory
