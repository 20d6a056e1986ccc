"""One linear layer per head, all heads in one batched product."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.precision import full_precision
from lit_mtdqn.networks.rows import TaskRows, select
from lit_mtdqn.types import require


class TaskLinear(TaskRows):
    """Applies to each row group the linear layer of its head, under autocast in float32, too.

    The layers are rows of one parameter, so that a forward pass is one batched product. They are
    saved by the heads' names, without padding.

    Args:
        heads: Name of each task's head, identifiers; tasks of one name share a row.
        in_features: Size of the input.
        out_features: Size of each task's output; narrower ones are padded to the widest.
        init_scale: Factor on PyTorch's usual initial weights. Near 0 the outputs start near 0.

    Attributes:
        is_shared: Whether some tasks have one head.
    """

    def __init__(
        self,
        heads: Sequence[str],
        in_features: int,
        out_features: Sequence[int],
        init_scale: float = 1.0,
    ) -> None:
        super().__init__(heads)
        require(init_scale >= 0.0, "init_scale", "be at least 0", init_scale)
        self.heads = self.row_names
        widths = list(zip(heads, out_features, strict=True))
        self.widths = tuple(max(w for h, w in widths if h == head) for head in self.heads)
        bound = init_scale / math.sqrt(in_features)
        shape = (len(self.heads), in_features, max(self.widths))
        weight = torch.empty(shape).uniform_(-bound, bound)
        for row, width in enumerate(self.widths):
            weight[row, :, width:] = 0.0
        self.weight = nn.Parameter(weight)
        # With the axis of rows in place: `unsqueeze` would take as long as half the product.
        self.bias = nn.Parameter(torch.zeros(len(self.heads), 1, max(self.widths)))
        used = torch.arange(max(self.widths)) < torch.tensor(self.widths).view(-1, 1, 1)
        self.register_buffer("used", used.to(self.bias.dtype), persistent=False)

    used: Tensor

    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return [S, B, out] for features [S, B, in] and the task of each group, [S]."""
        return self._in_full(self._products, features, task)

    def _products(self, features: Tensor, task: Tensor) -> Tensor:
        weight, bias = self.rows(task)
        return torch.baddbmm(bias, features, weight)

    def _in_full(self, products: Callable[..., Tensor], features: Tensor, *given: Tensor) -> Tensor:
        """Return products in the precision of the weights, autocast or not.

        Eight bits of a value of 100 would not tell actions apart whose values differ by less than
        0.5.
        """
        with full_precision(features.device):
            return products(features.to(self.weight.dtype), *given)

    def scaled(self, features: Tensor, scale: Tensor, task: Tensor) -> Tensor:
        """Return what `forward` makes of the features multiplied by N vectors.

        Scales the weights instead of the features, which are N / out times as many numbers.

        Args:
            features: [S, B, in].
            scale: The vectors of each row, [B, N, in], or [1, N, in] for all rows.
            task: [S].

        Returns:
            [S, B, N, out].
        """
        return self._in_full(self._scaled_products, features, scale, task)

    def _scaled_products(self, features: Tensor, scale: Tensor, task: Tensor) -> Tensor:
        weight, bias = self.rows(task)
        products = features.permute(1, 2, 0).unsqueeze(-1) * weight.permute(1, 0, 2)
        output = torch.matmul(scale.to(weight.dtype), products.flatten(2))
        groups = output.view(*output.shape[:2], weight.shape[0], -1).permute(2, 0, 1, 3)
        return groups + bias.unsqueeze(1)

    def rows(self, task: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights [S, in, out] and biases [S, 1, out] of each group's head."""
        return self._of_tasks(self.weight, self.bias, task)

    def _of_tasks(self, weight: Tensor, bias: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.rows_of(task)
        if rows is None:
            return weight, bias
        return select(weight, rows), select(bias, rows)

    @torch.no_grad()
    def rescale_(self, factor: Tensor, shift: Tensor) -> None:
        """Multiply each task's outputs by a factor and add a shift, in place.

        Args:
            factor: By task, equal for tasks of one head, [T].
            shift: By task, [T].
        """
        factor, shift = self._by_row(factor), self._by_row(shift)
        for parameter in self.parameters(recurse=False):
            parameter.mul_(factor)
        self.bias.addcmul_(shift, self.used)

    def _by_row(self, numbers: Tensor) -> Tensor:
        """Return numbers by task, equal for tasks of one head, as numbers by row, [R, 1, 1]."""
        if self._every_row is None:
            rows = numbers.new_empty(len(self.heads))
            numbers = rows.index_copy_(0, self.row_of_task, numbers)
        return numbers.to(self.bias).view(-1, 1, 1)

    def _saved_row(self, name: str, stack: Tensor, row: int) -> tuple[str, Tensor]:
        used = stack[row, ..., : self.widths[row]]
        return f"{self.heads[row]}.{name}", used.squeeze(0)

    def extra_repr(self) -> str:
        """Name the heads and sizes."""
        outputs = dict(zip(self.heads, self.widths, strict=True))
        return f"in_features={self.weight.shape[1]}, out_features={outputs}"
