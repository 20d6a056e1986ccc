"""What of one network's weights fits into another: by name, by row and by shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.copies import Copies
from lit_mtdqn.networks.rows import NamedRows
from lit_mtdqn.networks.torsos import LayeredTorso
from lit_mtdqn.types import require

Outcome = Literal["moved", "adapted", "kept", "ignored", "anchored", "free"]


class Move(NamedTuple):
    """What becomes of one saved tensor.

    Attributes:
        name: Its name: the receiving network's, or of what is ignored the giving one's.
        source: Name under which the giving network has it, or None.
        outcome: `moved` as it is; `adapted`, as much of it as fits; `kept` as it was, for nothing
            came; `ignored`, nothing has taken it. Of an anchor: `anchored`, held near it; `free`.
        reason: Why.
    """

    name: str
    source: str | None
    outcome: Outcome
    reason: str


def names_of_parts(
    network: nn.Module, parts: Sequence[str], layers: int | None, asker: str = "WeightTransfer"
) -> list[str]:
    """Return the names of a network's saved tensors that belong to some parts, in their order.

    Args:
        network: The network.
        parts: `all`, `heads`, `trunk` (all but the heads), or beginnings of names such as `torso`.
        layers: Keeps the first so many layers of torsos alone; None keeps all.
        asker: Who wants to know, for complaints.

    Raises:
        ValueError: If a part is unknown, or nothing belongs to all of this.
    """
    every = list(network.state_dict())
    known = ["all", "trunk", "heads", *dict.fromkeys(_modules(every))]
    for part in parts:
        must = f"name parts among {', '.join(known)}"
        is_known = part in known[:3] or any(_is_in(name, part) for name in every)
        require(is_known, f"{asker}.parts", must, part)
    found = [name for name in every if any(_is_in(name, part) for part in parts)]
    if layers is None:
        return found
    require(layers >= 1, f"{asker}.layers", "be at least 1 or null", layers)
    first = _first_layers(network, layers)
    found = [name for name in found if name in first]
    must = "reach into a torso that names its layers, as a LayeredTorso does"
    require(bool(found), f"{asker}.layers", must, f"none of them in {list(parts)}")
    return found


def plan_moves(
    network: nn.Module,
    found: Mapping[str, Tensor],
    wanted: Sequence[str],
    tasks: Mapping[str, str],
    names: Mapping[str, str],
    *,
    exact: bool,
    name: str = "WeightTransfer.source",
) -> list[Move]:
    """Return what becomes of the wanted tensors of a network and of all that another one has.

    Args:
        network: The receiving network.
        found: What the giving network has saved.
        wanted: Names of the receiving network's tensors.
        tasks: The giving network's name for a task or head, by the receiving one's.
        names: The giving network's beginning of names, by the receiving one's.
        exact: Whether a tensor of another shape is refused rather than adapted.
        name: What the user calls the source, for complaints.

    Raises:
        ValueError: If a task or name is unknown, shapes differ and must not, or nothing at all
            fits.
    """
    own, owner = network.state_dict(), name.partition(".")[0]
    rows = {row for _, row in _rows(network)}
    must = f"name tasks and heads among {sorted(rows)}"
    require(set(tasks) <= rows, f"{owner}.tasks", must, sorted(tasks))
    for beginning in names:
        must = f"name beginnings of {_modules(own)}"
        is_known = any(_is_in(key, beginning) for key in own)
        require(is_known, f"{owner}.names", must, beginning)
    sources = {key: _source_of(network, key, tasks, names) for key in wanted}
    moves = [_move(key, own[key], sources[key], found, exact=exact) for key in wanted]
    must = f"have some of {_modules(wanted)}"
    fits = any(move.outcome in ("moved", "adapted") for move in moves)
    require(fits, name, must, _modules(found))
    taken = {move.source for move in moves}
    return [*moves, *(_ignored(key, own) for key in found if key not in taken)]


def received(
    network: nn.Module, found: Mapping[str, Tensor], moves: Iterable[Move], keep: float
) -> dict[str, Tensor]:
    """Return a network's saved tensors after some moves; the network itself stays as it is.

    Args:
        network: The receiving network.
        found: What the giving network has saved.
        moves: The moves.
        keep: Share of what comes; the rest is what was there (shrink and perturb).
    """
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for name, source, outcome, _ in moves:
        if outcome in ("moved", "adapted") and source is not None:
            common = _common(state[name], found[source])
            came = found[source][common].to(state[name])
            if came.is_floating_point():
                came = torch.lerp(state[name][common], came, keep)
            state[name][common] = came
    return state


def moved_heads(network: nn.Module, moves: Iterable[Move]) -> set[str]:
    """Return the names of heads of which something has come."""
    came = {move.name for move in moves if move.outcome in ("moved", "adapted")}
    rows = [(prefix, row) for prefix, row in _rows(network) if prefix.startswith("head.")]
    return {row for prefix, row in rows if any(_is_in(name, f"{prefix}.{row}") for name in came)}


def names_of_heads(network: nn.Module, heads: Iterable[str]) -> set[str]:
    """Return the names of a network's saved tensors that belong to some heads alone."""
    own = set(heads)
    prefixes = [f"{p}.{row}" for p, row in _rows(network) if p.startswith("head.") and row in own]
    return {n for n in network.state_dict() if any(_is_in(n, prefix) for prefix in prefixes)}


def describe(moves: Iterable[Move]) -> str:
    """Return a table of moves, a line for each module, outcome and reason."""
    lines: dict[tuple[str, str, str], None] = {}
    for name, source, outcome, reason in moves:
        told = reason or ("" if source == name or source is None else f"from {_module(source)}")
        lines[_module(name), outcome, told] = None
    width = max(len(module) for module, _, _ in lines)
    kind = max(len(outcome) for _, outcome, _ in lines)
    return "\n".join(f"{m:{width}}  {o:{kind}}  {r}".rstrip() for m, o, r in lines)


def _move(name: str, own: Tensor, source: str, found: Mapping[str, Tensor], *, exact: bool) -> Move:
    if source not in found:
        return Move(name, None, "kept", f"the source has no {_module(source)}")
    shapes = tuple(found[source].shape), tuple(own.shape)
    if shapes[0] == shapes[1]:
        return Move(name, source, "moved", "")
    must = f"have the shape {shapes[1]} of the model's {name}, unless `exact` is false"
    require(not exact, f"WeightTransfer.source: {source}", must, shapes[0])
    if len(shapes[0]) != len(shapes[1]):
        reason = f"has {len(shapes[1])} axes, in the source {len(shapes[0])}"
        return Move(name, None, "kept", reason)
    return Move(name, source, "adapted", f"{shapes[1]}, in the source {shapes[0]}")


def _ignored(name: str, own: Mapping[str, Tensor]) -> Move:
    reason = "not asked for" if name in own else f"the model has no {_module(name)}"
    return Move(name, name, "ignored", reason)


def _common(own: Tensor, other: Tensor) -> tuple[slice, ...]:
    return tuple(slice(min(sizes)) for sizes in zip(own.shape, other.shape, strict=True))


def _is_in(name: str, part: str) -> bool:
    match part:
        case "all":
            return True
        case "heads":
            return name.startswith("head.")
        case "trunk":
            return not name.startswith("head.")
    return name == part or name.startswith(f"{part}.")


def _module(name: str) -> str:
    return name.rpartition(".")[0] or name


def _modules(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(_module(name) for name in names))


def _source_of(
    network: nn.Module, name: str, tasks: Mapping[str, str], names: Mapping[str, str]
) -> str:
    """Return the giving network's name of a tensor: by the longest beginning, else by its task."""
    for own in sorted(names, key=len, reverse=True):
        if _is_in(name, own):
            return names[own] + name.removeprefix(own)
    for prefix, own in _rows(network):
        if own in tasks and _is_in(name, f"{prefix}.{own}"):
            return f"{prefix}.{tasks[own]}{name.removeprefix(f'{prefix}.{own}')}"
    return name


def _rows(network: nn.Module) -> list[tuple[str, str]]:
    """Return the names of all modules of rows, with each of their rows."""
    named = network.named_modules()
    stacks = [(prefix, module) for prefix, module in named if isinstance(module, NamedRows)]
    return [(prefix, row) for prefix, stack in stacks for row in stack.row_names]


def _first_layers(network: nn.Module, count: int) -> set[str]:
    """Return the names of all saved tensors of the first layers of all torsos."""
    found: set[str] = set()
    for prefix, module in network.named_modules():
        if isinstance(module, LayeredTorso):
            found |= {f"{prefix}.{name}" for name in _names_of_layers(module, count)}
        if isinstance(module, Copies) and isinstance(module._template[0], LayeredTorso):
            names = _names_of_layers(module._template[0], count)
            found |= {f"{prefix}.{row}.{name}" for row in module.row_names for name in names}
    return found


def _names_of_layers(torso: LayeredTorso, count: int) -> list[str]:
    prefixes = {module: name for name, module in torso.named_modules()}
    return [
        f"{prefixes[module]}.{name}"
        for layer in torso.chain()[:count]
        for module in layer
        for name in module.state_dict()
    ]
