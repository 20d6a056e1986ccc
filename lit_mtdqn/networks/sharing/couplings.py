"""What passes between the columns of tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.copies import convolution
from lit_mtdqn.networks.rows import NamedRows
from lit_mtdqn.networks.torsos import LayeredTorso


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

    Column k receives `U_k relu(sum over j before k of a_kj V_kj h_j)` at every layer but the first,
    and what its head sees once more, with h_j what column j put out at the layer before, to which
    no gradient goes, and a_kj a learned scale. V_kj are dense for vectors and 1x1 convolutions for
    images; U_k are layers of the kind that receives.

    Differences from the paper: the sum is added after the activation; layers that are neither dense
    nor a plain convolution receive averages over the image, one number per channel.

    Args:
        order: Names of the columns, from the first to the last.
        torso: One of the columns.
        widths: Numbers that each of its layers puts out.
        adapter_size: Width of the adapters; they are at most as wide as what they receive.
        strength: Initial scale a_kj.

    References:
        Rusu et al. 2016, "Progressive Neural Networks", equation 2,
        https://arxiv.org/abs/1606.04671.
    """

    def __init__(
        self,
        order: Sequence[str],
        torso: LayeredTorso,
        widths: Sequence[int],
        adapter_size: int,
        strength: float,
    ) -> None:
        super().__init__()
        self.receives = len(order) > 1
        if not self.receives:
            return
        sizes = torso.layer_sizes
        links = [
            _Link.of(before, width // before, size, layer)
            for (before, size), width, layer in zip(
                pairwise(sizes), widths[:-1], torso.chain()[1:], strict=True
            )
        ]
        links.append(_Link(sizes[-1], 1, sizes[-1], None))
        self.adapters = nn.ModuleList(
            _Adapter(order, link, adapter_size, strength) for link in links
        )

    def forward(self, layer: int, outputs: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Return the outputs [T, N, size, ...] of a layer with what comes from other columns.

        Args:
            layer: Its number; that of all layers stands for what heads see.
            outputs: What the columns make of their own.
            before: What this module returned for the layers before.
        """
        if not before or not self.receives:
            return outputs
        received: Tensor = self.adapters[layer - 1](before[-1].detach())
        return outputs + received.view(*received.shape, *[1] * (outputs.dim() - received.dim()))


class _Link(NamedTuple):
    """From the output of one layer to the next one.

    Attributes:
        before: Units or channels that are received.
        positions: Places of an image that are received one by one; 1 for averages and vectors.
        size: Units or channels that receive.
        convolution: How a convolution receives; None for other layers.
    """

    before: int
    positions: int
    size: int
    convolution: nn.Conv2d | None

    @classmethod
    def of(cls, before: int, positions: int, size: int, layer: Sequence[nn.Module]) -> _Link:
        """Return the link to a layer, given its modules."""
        kinds = [module for module in layer if isinstance(module, nn.Linear | nn.Conv2d)]
        match kinds:
            case [nn.Linear()]:
                return cls(before, positions, size, None)
            case [nn.Conv2d(groups=1, padding_mode="zeros") as module]:
                return cls(before, positions, size, module)
            case _:
                return cls(before, 1, size, None)


class _Adapter(nn.Module):
    """The adapters of one layer."""

    source: Tensor
    receiver: Tensor
    column: Tensor

    def __init__(self, order: Sequence[str], link: _Link, width: int, strength: float) -> None:
        super().__init__()
        self.before, self.positions = link.before, link.positions
        width = min(width, link.before)
        columns, receivers = sorted(order), sorted(order[1:])
        pairs = sorted((to, source) for i, to in enumerate(order) for source in order[:i])
        self.down = _Down([f"{to}.{source}" for to, source in pairs], link.before, width, strength)
        self.up = _Up(receivers, link, width)
        indices = {
            "source": [columns.index(source) for _, source in pairs],
            "receiver": [receivers.index(to) for to, _ in pairs],
            "column": [columns.index(to) for to in receivers],
        }
        for name, index in indices.items():
            self.register_buffer(name, torch.tensor(index), persistent=False)

    def forward(self, before: Tensor) -> Tensor:
        """Return what columns receive, [T, N, size, ...], from outputs [T, N, before, ...]."""
        count, rows = before.shape[:2]
        places = before.reshape(count, rows, self.before, -1)
        if self.positions == 1:
            places = places.mean(-1, keepdim=True)
        # Places of images as further rows: a dense layer on them is a 1x1 convolution.
        flat = places.transpose(2, 3).flatten(1, 2)
        projected = self.down(flat.index_select(0, self.source))
        shape = (len(self.column), *projected.shape[1:])
        hidden = projected.new_zeros(shape).index_add(0, self.receiver, projected).relu()
        hidden = hidden.unflatten(1, (rows, -1)).transpose(2, 3)
        received: Tensor = self.up(hidden, before.shape[3:])
        everyone = received.new_zeros(count, *received.shape[1:])
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
    def __init__(self, receivers: Sequence[str], link: _Link, width: int) -> None:
        super().__init__(receivers)
        # In a list, lest its parameters be taken for this module's.
        self._convolution = [link.convolution and deepcopy(link.convolution).to("meta")]
        kernel = () if link.convolution is None else link.convolution.kernel_size
        inputs = width * (math.prod(kernel) if kernel else link.positions)
        shape = [link.size, width, *kernel] if kernel else [inputs, link.size]
        bound = 1.0 / math.sqrt(inputs)
        weight = torch.empty(len(self.row_names), *shape)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound))

    def forward(self, hidden: Tensor, image: Sequence[int]) -> Tensor:
        """Return [R, N, size, ...] for places [R, N, width, P] of an image, or of a vector."""
        (module,) = self._convolution
        if module is None:
            return torch.bmm(hidden.flatten(2), self.weight)
        return convolution(module, {"weight": self.weight}, hidden.view(*hidden.shape[:3], *image))
