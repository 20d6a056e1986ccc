"""Parts of a network: what users call them, and which numbers belong to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from torch import nn

from lit_mtdqn.networks.copies import Copies
from lit_mtdqn.networks.rows import NamedRows
from lit_mtdqn.networks.torsos import LayeredTorso
from lit_mtdqn.types import require


def names_of_parts(
    network: nn.Module, parts: Sequence[str], layers: int | None, asker: str
) -> list[str]:
    """Return the names of a network's saved tensors that belong to some parts, in their order.

    Args:
        network: The network.
        parts: `all`, `heads`, `trunk` (all but the heads), beginnings of names such as `torso`, or
            names of tasks and heads, for all rows that these have to themselves: what passes
            between two tasks, `to.source`, belongs to the one that receives.
        layers: Keeps the first so many layers of torsos alone; None keeps all.
        asker: Who wants to know, for complaints.

    Raises:
        ValueError: If a part is unknown, no torso has so many layers, or nothing belongs to all of
            this.
    """
    every = list(network.state_dict())
    rows = rows_of(network)
    known = ["all", "trunk", "heads", *modules_of(every), *sorted({row for _, row in rows})]
    beginnings = list(parts)
    for part in parts:
        own = [f"{prefix}.{row}" for prefix, row in rows if begins(row, part)]
        must = f"name parts among {', '.join(known)}"
        is_known = part in known[:3] or own or any(is_in(name, part) for name in every)
        require(bool(is_known), f"{asker}.parts", must, part)
        beginnings += own
    found = [name for name in every if any(is_in(name, beginning) for beginning in beginnings)]
    if layers is None:
        return found
    require(layers >= 1, f"{asker}.layers", "be at least 1 or null", layers)
    first = _first_layers(network, layers)
    found = [name for name in found if name in first]
    must = "reach into a torso that names its layers, as a LayeredTorso does"
    require(bool(found), f"{asker}.layers", must, f"none of them in {list(parts)}")
    deepest = max(len(torso.chain()) for _, torso in _torsos(network))
    require(layers <= deepest, f"{asker}.layers", f"be at most {deepest}, all layers", layers)
    return found


def parts_of_parameters(
    network: nn.Module, parts: Mapping[str, Iterable[str]]
) -> dict[nn.Parameter, list[str | None]]:
    """Return the part to which each parameter belongs, or to which each of its rows does.

    Args:
        network: The network.
        parts: Names of saved tensors by part; one that is in several belongs to the last.

    Returns:
        By parameter one part for all of it, or one for each row of `NamedRows`, None for what is in
        none. Parameters of which nothing is in a part are left out.
    """
    part_of = {name: part for part, names in parts.items() for name in names}
    found: dict[nn.Parameter, list[str | None]] = {}
    for prefix, module in network.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, parameter in module.named_parameters(recurse=False):
            names = module.names_of_rows(name) if isinstance(module, NamedRows) else [name]
            found[parameter] = [part_of.get(start + own) for own in names]
    return {parameter: own for parameter, own in found.items() if any(own)}


def is_in(name: str, part: str) -> bool:
    """Return whether a saved tensor belongs to a part."""
    match part:
        case "all":
            return True
        case "heads":
            return name.startswith("head.")
        case "trunk":
            return not name.startswith("head.")
    return begins(name, part)


def begins(name: str, beginning: str) -> bool:
    """Return whether a dotted name begins with some of its words."""
    return name == beginning or name.startswith(f"{beginning}.")


def rows_of(network: nn.Module) -> list[tuple[str, str]]:
    """Return the names of all modules of rows, with each of their rows."""
    named = network.named_modules()
    stacks = [(prefix, module) for prefix, module in named if isinstance(module, NamedRows)]
    return [(prefix, row) for prefix, stack in stacks for row in stack.row_names]


def module_of(name: str) -> str:
    """Return the module that a saved tensor is of."""
    return name.rpartition(".")[0] or name


def modules_of(names: Iterable[str]) -> list[str]:
    """Return the modules that saved tensors are of, each once."""
    return list(dict.fromkeys(module_of(name) for name in names))


def places_behind(network: nn.Module) -> dict[str, tuple[str, int]]:
    """Return the weights of dense layers that see images made by a convolution.

    Returns:
        By name of the dense weights the name of the convolution's, and the places of its images.
    """
    found: dict[str, tuple[str, int]] = {}
    for start, torso in _torsos(network):
        names = {module: f"{start}{name}.weight" for name, module in torso.named_modules()}
        for before, layer in pairwise(torso.chain()):
            makers = [module for module in before if isinstance(module, nn.Conv2d)]
            takers = [module for module in layer if isinstance(module, nn.Linear)]
            if makers and takers:
                places = takers[0].in_features // makers[-1].out_channels
                found[names[takers[0]]] = names[makers[-1]], places
    return found


def _torsos(network: nn.Module) -> Iterator[tuple[str, LayeredTorso]]:
    """Yield all torsos that name their layers, with the beginning of their names."""
    for prefix, module in network.named_modules():
        if isinstance(module, LayeredTorso):
            yield f"{prefix}.", module
        if isinstance(module, Copies) and isinstance(module._template[0], LayeredTorso):
            for row in module.row_names:
                yield f"{prefix}.{row}.", module._template[0]


def _first_layers(network: nn.Module, count: int) -> set[str]:
    """Return the names of all saved tensors of the first layers of all torsos."""
    return {
        start + name for start, torso in _torsos(network) for name in _names_of_layers(torso, count)
    }


def _names_of_layers(torso: LayeredTorso, count: int) -> list[str]:
    prefixes = {module: name for name, module in torso.named_modules()}
    return [
        f"{prefixes[module]}.{name}"
        for layer in torso.chain()[:count]
        for module in layer
        for name in module.state_dict()
    ]
