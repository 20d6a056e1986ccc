"""What of one network's weights fits into another: by name, by row and by shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.parts import is_in, module_of, modules_of, places_behind, rows_of
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
    rows = {row for _, row in rows_of(network)}
    must = f"name tasks and heads among {sorted(rows)}"
    require(set(tasks) <= rows, f"{owner}.tasks", must, sorted(tasks))
    for beginning in names:
        must = f"name beginnings of {modules_of(own)}"
        is_known = any(is_in(key, beginning) for key in own)
        require(is_known, f"{owner}.names", must, beginning)
    sources = {key: _source_of(network, key, tasks, names) for key in wanted}
    unlike = _of_unlike_images(network, found, tasks, names)
    moves = [
        _move(key, own[key], sources[key], found, unlike.get(key), exact=exact) for key in wanted
    ]
    must = f"have some of {modules_of(wanted)}"
    fits = any(move.outcome in ("moved", "adapted") for move in moves)
    require(fits, name, must, modules_of(found))
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
    rows = [(prefix, row) for prefix, row in rows_of(network) if prefix.startswith("head.")]
    return {row for prefix, row in rows if any(is_in(name, f"{prefix}.{row}") for name in came)}


def names_of_heads(network: nn.Module, heads: Iterable[str]) -> set[str]:
    """Return the names of a network's saved tensors that belong to some heads alone."""
    own = set(heads)
    prefixes = [f"{p}.{row}" for p, row in rows_of(network) if p.startswith("head.") and row in own]
    return {n for n in network.state_dict() if any(is_in(n, prefix) for prefix in prefixes)}


def describe(moves: Iterable[Move]) -> str:
    """Return a table of moves, a line for each module, outcome and reason."""
    lines: dict[tuple[str, str, str], None] = {}
    for name, source, outcome, reason in moves:
        told = reason or ("" if source == name or source is None else f"from {module_of(source)}")
        lines[module_of(name), outcome, told] = None
    width = max(len(module) for module, _, _ in lines)
    kind = max(len(outcome) for _, outcome, _ in lines)
    return "\n".join(f"{m:{width}}  {o:{kind}}  {r}".rstrip() for m, o, r in lines)


def _move(
    name: str,
    own: Tensor,
    source: str,
    found: Mapping[str, Tensor],
    unlike: str | None,
    *,
    exact: bool,
) -> Move:
    if source not in found:
        return Move(name, None, "kept", f"the source has no {module_of(source)}")
    shapes = tuple(found[source].shape), tuple(own.shape)
    if shapes[0] == shapes[1] and unlike is None:
        return Move(name, source, "moved", "")
    must = f"have the shape {shapes[1]} of the model's {name}, unless `exact` is false"
    require(not exact, f"WeightTransfer.source: {source}", must, shapes[0])
    if unlike is not None:
        return Move(name, None, "kept", unlike)
    if len(shapes[0]) != len(shapes[1]):
        reason = f"has {len(shapes[1])} axes, in the source {len(shapes[0])}"
        return Move(name, None, "kept", reason)
    return Move(name, source, "adapted", f"{shapes[1]}, in the source {shapes[0]}")


def _of_unlike_images(
    network: nn.Module,
    found: Mapping[str, Tensor],
    tasks: Mapping[str, str],
    names: Mapping[str, str],
) -> dict[str, str]:
    """Return why dense weights do not fit whose columns are places of images of another size."""
    reasons = {}
    for name, (convolution, places) in places_behind(network).items():
        dense, maker = (_source_of(network, own, tasks, names) for own in (name, convolution))
        if dense in found and maker in found:
            theirs = found[dense].shape[-1] // len(found[maker])
            if theirs != places:
                reasons[name] = f"sees {places} places of an image, in the source {theirs}"
    return reasons


def _ignored(name: str, own: Mapping[str, Tensor]) -> Move:
    reason = "not asked for" if name in own else f"the model has no {module_of(name)}"
    return Move(name, name, "ignored", reason)


def _common(own: Tensor, other: Tensor) -> tuple[slice, ...]:
    return tuple(slice(min(sizes)) for sizes in zip(own.shape, other.shape, strict=True))


def _source_of(
    network: nn.Module, name: str, tasks: Mapping[str, str], names: Mapping[str, str]
) -> str:
    """Return the giving network's name of a tensor: by the longest beginning, else by its task."""
    for own in sorted(names, key=len, reverse=True):
        if is_in(name, own):
            return names[own] + name.removeprefix(own)
    for prefix, own in rows_of(network):
        if own in tasks and is_in(name, f"{prefix}.{own}"):
            return f"{prefix}.{tasks[own]}{name.removeprefix(f'{prefix}.{own}')}"
    return name
