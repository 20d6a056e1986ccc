"""One linear layer per head, all heads in one batched product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.rows import NamedRows, RowOfTask
from lit_mtdqn.types import require


class TaskLinear(NamedRows):
    """Applies to each row group the linear layer of its head.

    The layers are rows of one parameter, so that a forward pass is one batched product. They are
    saved by the heads' names, without padding.

    Args:
        heads: Name of each task's head, identifiers; tasks of one name share a row.
        in_features: Size of the input.
        out_features: Size of each task's output; narrower ones are padded to the widest.
        init_scale: Factor on PyTorch's usual initial weights. Near 0 the outputs start near 0.
    """

    def __init__(
        self,
        heads: Sequence[str],
        in_features: int,
        out_features: Sequence[int],
        init_scale: float = 1.0,
    ) -> None:
        super().__init__(heads, shared=len(set(heads)) < len(heads))
        require(init_scale >= 0.0, "init_scale", "be at least 0", init_scale)
        self.heads = self.row_names
        widths = list(zip(heads, out_features, strict=True))
        self.widths = tuple(max(w for h, w in widths if h == head) for head in self.heads)
        self.row_of_task = RowOfTask(heads)
        bound = init_scale / math.sqrt(in_features)
        shape = (len(self.heads), in_features, max(self.widths))
        weight = torch.empty(shape).uniform_(-bound, bound)
        for row, width in enumerate(self.widths):
            weight[row, :, width:] = 0.0
        self.weight = nn.Parameter(weight)
        # With the axis of rows in place: `unsqueeze` would take as long as half the product.
        self.bias = nn.Parameter(torch.zeros(len(self.heads), 1, max(self.widths)))

    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return [S, B, out] for features [S, B, in] and the task of each group, [S]."""
        return self._product(features, task, self.weight, self.bias)

    def _product(self, features: Tensor, task: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = self.row_of_task.select(task)
        return torch.baddbmm(self.select(bias, rows), features, self.select(weight, rows))

    def _saved_row(self, name: str, stack: Tensor, row: int) -> tuple[str, Tensor]:
        used = stack[row, ..., : self.widths[row]]
        return f"{self.heads[row]}.{name}", used.squeeze(0)

    def extra_repr(self) -> str:
        """Name the heads and sizes."""
        outputs = dict(zip(self.heads, self.widths, strict=True))
        return f"in_features={self.weight.shape[1]}, out_features={outputs}"
