"""All parameters of a network as one row of numbers, and by the names under which it is saved."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.gradients import as_gradients


def flat_parameters(network: nn.Module) -> Tensor:
    """Return all parameters of a network side by side, [P], with their graph."""
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


@torch.no_grad()
def flat_from_saved(network: nn.Module, saved: Mapping[str, Tensor]) -> Tensor:
    """Return numbers that are given by saved names in the order of `flat_parameters`, [P].

    Args:
        network: The network; stays as it is.
        saved: Tensors by the names of its state dict; numbers of parameters not named are 0.
    """
    twin = deepcopy(network)
    for parameter in twin.parameters():
        parameter.zero_()
    twin.load_state_dict(dict(saved), strict=False)
    return flat_parameters(twin)


@torch.no_grad()
def saved_from_flat(network: nn.Module, row: Tensor) -> dict[str, Tensor]:
    """Return numbers in the order of `flat_parameters`, [P], by saved names.

    Args:
        network: The network; stays as it is.
        row: [P].
    """
    twin = deepcopy(network)
    parameters = list(twin.parameters())
    for parameter, piece in zip(parameters, as_gradients(row, parameters), strict=True):
        parameter.copy_(piece)
    return {name: tensor.cpu() for name, tensor in twin.state_dict().items()}
