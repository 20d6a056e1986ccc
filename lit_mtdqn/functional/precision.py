"""Where mixed precision ends."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which products keep the precision of their factors.

    Gradients are taken in it: under autocast they would be rounded again on their way back. It
    costs next to nothing where autocast is off.

    Args:
        device: Where the factors are.
    """
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
