"""All parameters of a network as one row of numbers, and by the names under which it is saved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.gradients import as_gradients
from lit_mtdqn.networks.rows import NamedRows


def flat_parameters(network: nn.Module) -> Tensor:
    """Return all parameters of a network side by side, [P], with their graph."""
    return torch.cat([parameter.flatten() for parameter in network.parameters()])


def flat_from_saved(network: nn.Module, saved: Mapping[str, Tensor]) -> Tensor:
    """Return numbers that are given by saved names in the order of `flat_parameters`, [P].

    Args:
        network: The network.
        saved: Tensors by the names of its state dict, buffers aside; numbers of parameters that are
            not named are 0.
    """
    row = torch.zeros_like(flat_parameters(network))
    for name, place in saved_from_flat(network, row).items():
        if name in saved:
            place.copy_(saved[name])
    return row


def saved_from_flat(network: nn.Module, row: Tensor) -> dict[str, Tensor]:
    """Return views of numbers in the order of `flat_parameters`, [P], by saved names.

    Args:
        network: The network.
        row: [P].
    """
    parameters = dict(network.named_parameters())
    pieces = as_gradients(row, list(parameters.values()))
    places = dict(zip(parameters, pieces, strict=True))
    found: dict[str, Tensor] = {}
    for prefix, module in network.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, _ in module.named_parameters(recurse=False):
            piece = places[f"{start}{name}"]
            own = module.saved_rows(name, piece) if isinstance(module, NamedRows) else {name: piece}
            found |= {f"{start}{key}": tensor for key, tensor in own.items()}
    return found
