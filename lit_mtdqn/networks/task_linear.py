"""One linear layer per head, all heads in one batched product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mtdqn.types import require


class TaskLinear(nn.Module):
    """Applies to each row group the linear layer of its head.

    The layers are rows of one parameter, so that a forward pass is one batched product. Rows are
    kept in the order of the heads' names and saved one by one under these names, without padding:
    the order of tasks in a configuration never matters, and a checkpoint fits a model with more or
    fewer heads as far as the names agree.

    Args:
        heads: Name of each task's head, identifiers; tasks of one name share a row.
        in_features: Size of the input.
        out_features: Size of each task's output; narrower ones are padded to the widest.
        init_scale: Factor on PyTorch's usual initial weights. Near 0 the outputs start near 0.
    """

    row_of_task: Tensor

    def __init__(
        self,
        heads: Sequence[str],
        in_features: int,
        out_features: Sequence[int],
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        require(init_scale >= 0.0, "init_scale", "be at least 0", init_scale)
        self.heads = tuple(sorted(set(heads)))
        widths = list(zip(heads, out_features, strict=True))
        self.widths = tuple(max(w for h, w in widths if h == head) for head in self.heads)
        rows = torch.tensor([self.heads.index(head) for head in heads])
        self.register_buffer("row_of_task", rows, persistent=False)
        in_order = rows.tolist() == list(range(len(self.heads)))
        self._every_row = rows.tolist() if in_order else None
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
        weight, bias = self.rows(task)
        return torch.baddbmm(bias, features, weight)

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
        weight, bias = self.rows(task)
        products = features.permute(1, 2, 0).unsqueeze(-1) * weight.permute(1, 0, 2)
        output = torch.matmul(scale, products.flatten(2))
        groups = output.view(*output.shape[:2], len(weight), -1).permute(2, 0, 1, 3)
        return groups + bias.unsqueeze(1)

    def rows(self, task: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights [S, in, out] and biases [S, 1, out] of each group's head."""
        return self._of_tasks(self.weight, self.bias, task)

    def _of_tasks(self, weight: Tensor, bias: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        if self._is_every_row(task):
            return weight, bias
        row = self.row_of_task[task]
        return weight.index_select(0, row), bias.index_select(0, row)

    def _is_every_row(self, task: Tensor) -> bool:
        """Return whether the groups are all rows in order, which needs no copy of the weights.

        Asked on the CPU alone, where it takes a microsecond; elsewhere it would stall the device.
        """
        return task.device.type == "cpu" and task.tolist() == self._every_row

    def _saved_rows(self) -> dict[str, Tensor]:
        """Return views of what each head owns, by its name in a checkpoint."""
        return {
            f"{head}.{name}": parameter[row, ..., :width].squeeze(0)
            for name, parameter in self.named_parameters(recurse=False)
            for row, (head, width) in enumerate(zip(self.heads, self.widths, strict=True))
        }

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for name, row in self._saved_rows().items():
            destination[prefix + name] = row if keep_vars else row.detach().clone()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        rows = {prefix + name: row.detach() for name, row in self._saved_rows().items()}
        for key, row in rows.items():
            if key not in state_dict:
                missing_keys.append(key)
            elif state_dict[key].shape != row.shape:
                found = (tuple(state_dict[key].shape), tuple(row.shape))
                error_msgs.append(f"size mismatch for {key}: checkpoint, model = {found}.")
            else:
                row.copy_(state_dict[key])
        if strict:
            saved = {key for key in state_dict if key.startswith(prefix)}
            unexpected_keys.extend(sorted(saved - set(rows)))

    def extra_repr(self) -> str:
        """Name the heads and sizes."""
        outputs = dict(zip(self.heads, self.widths, strict=True))
        return f"in_features={self.weight.shape[1]}, out_features={outputs}"
