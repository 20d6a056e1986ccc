"""Padded and forbidden actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def padded_action_mask(num_actions: Sequence[int]) -> Tensor:
    """Return which of the padded actions each task really has.

    Args:
        num_actions: Number of actions of each of T tasks.

    Returns:
        Booleans [T, A], A the largest number.
    """
    counts = torch.tensor(list(num_actions))
    return torch.arange(int(counts.max())) < counts[:, None]


def mask_actions(q_values: Tensor, mask: Tensor | None) -> Tensor:
    """Return `q_values` with minus infinity at forbidden actions, for maxima and argmaxima only.

    Args:
        q_values: [..., A].
        mask: True where an action is allowed, broadcastable to `q_values`; None allows all.
    """
    return q_values if mask is None else q_values.masked_fill(~mask, -torch.inf)
