"""Every sharing, and small tasks for them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mtdqn.networks import Columns, Experts, LinearHead, MLPTorso, QNetwork, SharedTrunk
from lit_mtdqn.types import TaskInfo

SIZE = 4
LEFT = TaskInfo(name="left", observation_shape=(SIZE,), num_actions=3)
RIGHT = TaskInfo(name="right", observation_shape=(SIZE,), num_actions=3)
UP = TaskInfo(name="up", observation_shape=(SIZE,), num_actions=3)
THREE = [LEFT, RIGHT, UP]
TORSO = partial(MLPTorso, hidden=(8, 6))
LINEAR = partial(LinearHead, init_scale=1.0)

SHARINGS: dict[str, Any] = {
    "none": SharedTrunk,
    "concat": partial(SharedTrunk, conditioning="concat", embedding_dim=3),
    "film": partial(SharedTrunk, conditioning="film", embedding_dim=3),
    "mask": partial(SharedTrunk, conditioning="mask", mask_hidden=5),
    "branch": partial(SharedTrunk, conditioning="branch"),
    "strict": partial(SharedTrunk, conditioning="concat", one_head=True),
    "softmax": partial(Experts, num_experts=3),
    "gumbel": partial(Experts, router="gumbel", num_experts=3),
    "attention": partial(Experts, router="attention", num_experts=3, num_heads=2, embedding_dim=8),
    "moore": partial(Experts, router="linear", orthogonal=True, num_experts=3),
    "per_layer": partial(Experts, per_layer=True, num_experts=3),
    "columns": Columns,
    "pull": partial(Columns, coupling="pull"),
    "cross_stitch": partial(Columns, coupling="cross_stitch"),
    "lateral": partial(Columns, coupling="lateral", adapter_size=5, order=["right", "up", "left"]),
}
# Those whose torso need be no chain of layers.
ANY_TORSO = [
    "none",
    "concat",
    "strict",
    "softmax",
    "gumbel",
    "attention",
    "moore",
    "columns",
    "pull",
]


def shake(module: nn.Module, seed: int = 0) -> None:
    """Move all parameters to places that no initialisation would have."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def network_of(
    name: str, tasks: list[TaskInfo] = THREE, seed: int = 0, torso: Any = TORSO, **options: Any
) -> QNetwork:
    """Return a network with a sharing, in evaluation mode, its parameters shaken.

    Args:
        name: Which of `SHARINGS`.
        tasks: The tasks.
        seed: Seed of the parameters.
        torso: Makes the torso.
        **options: Further arguments of the sharing.
    """
    torch.manual_seed(seed)
    network = QNetwork(tasks, torso, LINEAR, partial(SHARINGS[name], **options))
    shake(network, seed)
    return network.eval()


def sharing_of(name: str, **options: Any) -> Any:
    """Return the sharing of such a network."""
    return network_of(name, **options).sharing


def observations(tasks: list[TaskInfo], rows: int = 5, groups: int = 0) -> Tensor:
    """Return random observations [S, B, *O]; one group per task if none is said."""
    shape = (groups or len(tasks), rows, *tasks[0].observation_shape)
    if tasks[0].observation_kind == "vector":
        return torch.randn(shape)
    return torch.randint(256, shape, dtype=torch.uint8)


def mlp(
    state: dict[str, Tensor], prefix: str, row: str, inputs: Tensor, first: int = 0
) -> list[Tensor]:
    """Return what the layers of a saved copy of `TORSO` make of inputs [N, O], one by one."""
    outputs: list[Tensor] = []
    for layer in range(2 - first):
        inputs = dense(state, f"{prefix}{row}.layers.{2 * (layer + first)}", inputs).relu()
        outputs.append(inputs)
    return outputs


def dense(state: dict[str, Tensor], key: str, inputs: Tensor) -> Tensor:
    """Return what a saved linear layer makes of inputs [N, in]."""
    return F.linear(inputs, state[f"{key}.weight"], state[f"{key}.bias"])
