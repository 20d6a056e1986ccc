"""What the processes of a run add up."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, without gradient; all ranks must ask.

    One message: Lightning's `strategy.reduce` sends another before it, at which ranks wait for one
    another, and writes into what it is given.

    Args:
        tensor: On a device that the ranks' backend serves.
    """
    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total
