"""What passes between the columns of tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.rows import NamedRows


class CrossStitch(NamedRows):
    """Replaces each column's output of a layer by a learned mixture of all columns' outputs.

    Args:
        tasks: Names of the columns.
        num_layers: Number of layers.
        strength: Initial weight of all other columns together; a column keeps the rest of 1.

    References:
        Misra et al. 2016, "Cross-stitch Networks for Multi-task Learning", equation 1,
        https://arxiv.org/abs/1604.03539.
    """

    undecayed = ("weight",)

    def __init__(self, tasks: Sequence[str], num_layers: int, strength: float) -> None:
        super().__init__((f"{to}.{source}" for to in tasks for source in tasks), shared=True)
        self.num_tasks = len(tasks)
        others = strength / max(self.num_tasks - 1, 1)
        weight = torch.full((self.num_tasks, self.num_tasks), others)
        weight.fill_diagonal_(1.0 - strength if self.num_tasks > 1 else 1.0)
        self.weight = nn.Parameter(weight.reshape(-1, 1).repeat(1, num_layers))

    def forward(self, layer: int, outputs: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Return the mixtures of the outputs [T, N, ...] of a layer, given its number."""
        mixing = self.weight[:, layer].view(self.num_tasks, self.num_tasks)
        return (mixing @ outputs.flatten(1)).view(outputs.shape)


class Lateral(nn.Module):
    """Adds to each column what learned adapters make of the columns before it.

    At every layer but the first, column k receives
    `U_k relu(sum over j before k of a_kj V_kj h_j)`, with h_j what column j put out at the layer
    before, to which no gradient goes, and a_kj a learned scale.

    Differences from the paper: the sum is added after the activation; the adapters of convolutions
    see and add averages over the image, one number per channel; the heads receive nothing.

    Args:
        order: Names of the columns, from the first to the last.
        layer_sizes: Units or channels of each layer.
        adapter_size: Width of the adapters.
        strength: Initial scale a_kj.

    References:
        Rusu et al. 2016, "Progressive Neural Networks", equation 2,
        https://arxiv.org/abs/1606.04671.
    """

    def __init__(
        self,
        order: Sequence[str],
        layer_sizes: Sequence[int],
        adapter_size: int,
        strength: float,
    ) -> None:
        super().__init__()
        self.layer_sizes = tuple(layer_sizes)
        self.receives = len(order) > 1
        if not self.receives:
            return
        self.adapters = nn.ModuleList(
            _Adapter(order, before, size, adapter_size, strength)
            for before, size in pairwise(layer_sizes)
        )

    def forward(self, layer: int, outputs: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Return the outputs [T, N, size, ...] of a layer with what comes from other columns.

        Args:
            layer: Its number.
            outputs: What the columns make of their own.
            before: What this module returned for the layers before.
        """
        if not before or not self.receives:
            return outputs
        last, size = before[-1].detach(), self.layer_sizes[layer - 1]
        channels = last.reshape(*last.shape[:2], size, -1)
        received: Tensor = self.adapters[layer - 1](channels.mean(-1))
        return outputs + received.view(*received.shape, *[1] * (outputs.dim() - 3))


class _Adapter(nn.Module):
    """The adapters of one layer."""

    source: Tensor
    receiver: Tensor
    column: Tensor

    def __init__(
        self, order: Sequence[str], before: int, size: int, width: int, strength: float
    ) -> None:
        super().__init__()
        columns, receivers = sorted(order), sorted(order[1:])
        pairs = sorted((to, source) for i, to in enumerate(order) for source in order[:i])
        self.down = _Down([f"{to}.{source}" for to, source in pairs], before, width, strength)
        self.up = _Up(receivers, width, size)
        indices = {
            "source": [columns.index(source) for _, source in pairs],
            "receiver": [receivers.index(to) for to, _ in pairs],
            "column": [columns.index(to) for to in receivers],
        }
        for name, index in indices.items():
            self.register_buffer(name, torch.tensor(index), persistent=False)

    def forward(self, before: Tensor) -> Tensor:
        """Return what columns receive, [T, N, size], from outputs [T, N, before]."""
        projected = self.down(before.index_select(0, self.source))
        shape = (len(self.column), *projected.shape[1:])
        hidden = projected.new_zeros(shape).index_add(0, self.receiver, projected).relu()
        received: Tensor = self.up(hidden)
        everyone = received.new_zeros(len(before), *received.shape[1:])
        return everyone.index_add(0, self.column, received)


class _Down(NamedRows):
    undecayed = ("scale",)

    def __init__(self, pairs: Sequence[str], before: int, width: int, strength: float) -> None:
        super().__init__(pairs)
        bound = 1.0 / math.sqrt(before)
        self.weight = nn.Parameter(torch.empty(len(pairs), before, width).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.full((len(pairs), 1, 1), strength))

    def forward(self, sources: Tensor) -> Tensor:
        return torch.bmm(sources, self.scale * self.weight)


class _Up(NamedRows):
    def __init__(self, receivers: Sequence[str], width: int, size: int) -> None:
        super().__init__(receivers)
        bound = 1.0 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(len(receivers), width, size).uniform_(-bound, bound))

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.bmm(hidden, self.weight)
