"""Comparisons at equal numbers of parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from lit_mtdqn.networks.heads import Head, LinearHead
from lit_mtdqn.networks.q_network import QNetwork
from lit_mtdqn.networks.torsos import MLPTorso, Torso
from lit_mtdqn.types import TaskInfos, require


def count_parameters(module: nn.Module) -> int:
    """Return the number of single parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def matched_width(
    tasks: TaskInfos,
    reference: nn.Module,
    torso: Callable[..., Torso] = MLPTorso,
    head: Callable[[TaskInfos, int], Head] = LinearHead,
) -> float:
    """Return how wide a plain shared trunk may be with at most as many parameters as a network.

    A sharing that has more parameters than one trunk is compared with a network without sharing
    whose torso has this `width_multiplier`. Random numbers are left as they are.

    Args:
        tasks: The tasks.
        reference: The network to match.
        torso: Makes the trunk; it must take `width_multiplier`.
        head: Makes the heads.

    Returns:
        The `width_multiplier`, to a thousandth.

    Raises:
        ValueError: If the reference has fewer parameters than the narrowest trunk.
    """
    budget = count_parameters(reference)

    def fits(thousandths: int) -> bool:
        wide = partial(torso, width_multiplier=thousandths / 1000)
        return count_parameters(QNetwork(tasks, wide, head)) <= budget

    with torch.random.fork_rng(devices=[]):
        must = "have at least the parameters of the narrowest trunk"
        require(fits(1), "reference", must, budget)
        low, high = 1, 1000
        while fits(high):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
    return low / 1000
