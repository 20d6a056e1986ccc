"""What a run has learned, without that which learned it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.algorithms.factories import (
    class_paths,
    from_plain,
    own_classes,
    trusted_class,
)
from lit_mtdqn.algorithms.loading import build_to_hold
from lit_mtdqn.analysis.checkpoints import (
    CHECKPOINTS,
    find_checkpoint,
    online_weights,
    read_checkpoint,
)
from lit_mtdqn.analysis.found_runs import read_config
from lit_mtdqn.analysis.run_search import CONFIG, run_of
from lit_mtdqn.functional.parameters import freeze_
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.match import says_values
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import as_task_infos


class SavedPolicy:
    """The network of a checkpoint with its scale, frozen.

    Of a checkpoint tensors and plain values are read. Only classes of this package and of PyTorch
    are imported on its word; further ones if the `config.yaml` of its run names them, too.

    Args:
        source: Checkpoint, or folder of a run, whose last network is taken.
        name: What the user calls it, for complaints.

    Attributes:
        folder: Of its run; None where its checkpoint lies in none.
        tasks: The tasks that it knows.
        predicts_values: Whether its outputs are values, not logits of a policy.

    Raises:
        ValueError: If it is no checkpoint of this package, or built of other parts.
    """

    def __init__(self, source: str, name: str) -> None:
        path = find_checkpoint([source], "last", name)
        # It may be the one before the last, one folder further down.
        near = path.resolve().parents[:2]
        self.folder = next((one.parent for one in near if one.name == CHECKPOINTS), None)
        saved = read_checkpoint(path, name)
        given = saved["hyper_parameters"]
        self.tasks = as_task_infos(given["tasks"])
        self.predicts_values = says_values(given)
        try:
            own = _own_classes(given, path, name)
            self.network = self._build_network(saved, own, name, path)
            self.scale = self._build_scale(saved, own, name, path)
        except (AttributeError, TypeError) as error:
            must = f"be built of parts of lit_mtdqn, of PyTorch, or that its run's {CONFIG} names"
            raise ValueError(f"`{name}` must {must}. Got {path}: {error}") from error

    def _build_network(
        self, saved: Mapping[str, Any], own: Mapping[str, type], name: str, path: Path
    ) -> QNetwork:
        factory = _factory(saved["hyper_parameters"]["network"], "network", own)
        weights = online_weights(saved["state_dict"])
        network: QNetwork = build_to_hold(lambda: factory(self.tasks), weights, name, path)
        freeze_(network)
        return network

    def _build_scale(
        self, saved: Mapping[str, Any], own: Mapping[str, type], name: str, path: Path
    ) -> Scale | None:
        plain = saved["hyper_parameters"].get("scale")
        if plain is None:
            return None
        factory = _factory(plain, "scale", own)

        def build() -> Scale:
            scale: Scale = factory(self.tasks)
            scale.bind(self.network)
            return scale

        start = "scale."
        state = saved["state_dict"].items()
        own_state = {n.removeprefix(start): value for n, value in state if n.startswith(start)}
        return build_to_hold(build, own_state, name, path)

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


def _own_classes(given: Mapping[str, Any], path: Path, name: str) -> dict[str, type]:
    """Return the user's classes that a run names, if its checkpoint needs any.

    Args:
        given: Hyperparameters of the checkpoint.
        path: The checkpoint.
        name: What the user calls it, for complaints.
    """
    run = run_of(path)
    needed = class_paths([given["network"], given.get("scale")])
    if run is None or all(trusted_class(needs) is not None for needs in needed):
        return {}
    return own_classes(read_config(run, name).get("model"))


def _factory(plain: Any, name: str, own: Mapping[str, type] | None) -> Callable[..., Any]:
    factory: Callable[..., Any] = from_plain(plain, name, own)
    return factory
