"""What torchjd's parts remember outside their state dict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchjd.aggregation import GradVacWeighting, PCDWeighting

MODULE = nn.Module().__dict__
CPU = torch.device("cpu")
# They weigh on the CPU, wherever the gradients are (torchjd 0.18).
ON_CPU = (GradVacWeighting, PCDWeighting)
PLAIN = (Tensor, bool, int, float, str, torch.dtype, torch.device, type(None))


def numbers_of(module: nn.Module) -> dict[str, Any]:
    """Return the private attributes of a module and its parts that are numbers, by their path.

    torchjd 0.18 keeps running averages in such attributes, and settings, which are left out: they
    have public properties. So are solvers, and the public attributes of `NashMTL`, which only
    warm-start its solver: they begin anew. Buffers are among them, because some come into being
    with the first update, so that a state dict alone would not fit a new module.
    """
    return {
        f"{path}.{name}": value
        for path, part in module.named_modules()
        for name, value in {**vars(part), **part._buffers}.items()
        if name not in MODULE and _is_remembered(part, name) and _is_plain(value)
    }


def load_numbers(module: nn.Module, numbers: dict[str, Any]) -> None:
    """Set what `numbers_of` has returned."""
    for place, value in numbers.items():
        path, _, name = place.rpartition(".")
        setattr(module.get_submodule(path), name, value)


def place_numbers(module: nn.Module, device: torch.device) -> None:
    """Move the numbers of `numbers_of` to where the module's parts take them.

    Moving a module leaves its plain attributes behind, and takes buffers along that stay behind in
    parts which work on the CPU.

    Args:
        module: The module.
        device: Where it is called with losses or gradients.
    """
    for place, value in numbers_of(module).items():
        path, _, name = place.rpartition(".")
        part = module.get_submodule(path)
        setattr(part, name, _placed(value, CPU if isinstance(part, ON_CPU) else device))


def _placed(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(_placed(entry, device) for entry in value)
    # Parts that note what device they remember of begin anew on any other.
    return device if isinstance(value, torch.device) else value


def _is_remembered(part: nn.Module, name: str) -> bool:
    return name.startswith("_") and not hasattr(type(part), name.removeprefix("_"))


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(entry) for entry in value)
    return isinstance(value, PLAIN)
