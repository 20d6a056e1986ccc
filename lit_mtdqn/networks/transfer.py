"""What of one network's weights fits into another: by name, by row and by shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.parts import begins, module_of, modules_of, places_behind, rows_of
from lit_mtdqn.types import require

Outcome = Literal["moved", "adapted", "fresh", "ignored", "anchored", "free"]


class Move(NamedTuple):
    """What becomes of one saved tensor.

    Attributes:
        name: Its name: the receiving network's, or of what is ignored the giving one's.
        source: Name under which the giving network has it, or None.
        outcome: `moved` as it is; `adapted`, as much of it as fits; `fresh`, as the receiving
            network has drawn it, for nothing came; `ignored`, nothing has taken it. Of an anchor:
            `anchored`, held near it; `free`.
        reason: Why.
    """

    name: str
    source: str | None
    outcome: Outcome
    reason: str

    @property
    def comes(self) -> bool:
        """Whether the receiving network takes something of the giving one's."""
        return self.outcome in ("moved", "adapted")


def plan_moves(
    network: nn.Module,
    found: Mapping[str, Tensor],
    wanted: Sequence[str],
    tasks: Mapping[str, str],
    names: Mapping[str, str],
    *,
    exact: bool,
    unlike: Mapping[str, str] | None = None,
    left_out: str = "not in `parts`",
    name: str = "WeightTransfer.source",
) -> list[Move]:
    """Return what becomes of all tensors of a network and of all that another one has.

    Args:
        network: The receiving network.
        found: What the giving network has saved.
        wanted: Names of the receiving network's tensors that are to receive; others stay fresh.
        tasks: The giving network's name for a task or head, by the receiving one's.
        names: The giving network's beginning of names, by the receiving one's.
        exact: Whether wanted tensors that the giving network lacks, or that do not fit as a whole,
            are refused rather than left fresh or adapted.
        unlike: Why some of the wanted tensors mean something else in the giving network, by name.
        left_out: Why a tensor is not wanted.
        name: What the user calls the source, for complaints, perhaps with the file: `A.source: a`.

    Raises:
        ValueError: If a task or name is unknown on either side, something must fit and does not, or
            nothing at all fits.
    """
    own, owner = network.state_dict(), name.partition(".")[0]
    _require_tasks(f"{owner}.tasks", tasks, network, found)
    _require_names(f"{owner}.names", names, own, found)
    sources = {key: _source_of(network, key, tasks, names) for key in own}
    unlike = {**_of_unlike_images(network, found, tasks, names), **(unlike or {})}
    asked = set(wanted)
    moves = [
        _move(key, own[key], sources[key], found, unlike.get(key))
        if key in asked
        else Move(key, None, "fresh", left_out)
        for key in own
    ]
    if exact:
        _require_exact(name, [move for move in moves if move.name in asked], sources, found)
    must = f"have some of {modules_of(wanted)}"
    fits = any(move.comes for move in moves)
    reasons = sorted({unlike[key] for key in wanted if key in unlike and sources[key] in found})
    require(fits, name, must, reasons or modules_of(found))
    # What has a place in the receiving network has its line there.
    placed = set(sources.values())
    return [*moves, *(_ignored(key, own) for key in found if key not in placed)]


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
    for move in moves:
        name, source = move.name, move.source
        if move.comes and source is not None:
            common = _common(state[name], found[source])
            came = found[source][common].to(state[name])
            if came.is_floating_point():
                came = torch.lerp(state[name][common], came, keep)
            state[name][common] = came
    return state


def moved_heads(network: nn.Module, moves: Sequence[Move]) -> dict[str, set[str]]:
    """Return the giving network's heads of which something has come, by head."""
    came = {m.name: m.source for m in moves if m.source and m.comes}
    givers: dict[str, set[str]] = {}
    for start, row in _heads_of(network):
        for name in (name for name in came if begins(name, start)):
            giver = came[name].removesuffix(name.removeprefix(start))
            givers.setdefault(row, set()).add(giver.rpartition(".")[2])
    return givers


def names_of_heads(network: nn.Module, heads: Iterable[str]) -> set[str]:
    """Return the names of a network's saved tensors that belong to some heads alone."""
    own = set(heads)
    return _beginning(network, [start for start, row in _heads_of(network) if row in own])


def names_of_tasks(network: nn.Module, tasks: Iterable[str]) -> set[str]:
    """Return the names of a network's saved tensors that are single tasks' below their heads."""
    own = set(tasks)
    rows = [(p, row) for p, row in rows_of(network) if row in own and not p.startswith("head.")]
    return _beginning(network, [f"{prefix}.{row}" for prefix, row in rows])


def _beginning(network: nn.Module, starts: Sequence[str]) -> set[str]:
    return {n for n in network.state_dict() if any(begins(n, start) for start in starts)}


def _heads_of(network: nn.Module) -> list[tuple[str, str]]:
    """Return the beginnings of the names that belong to single heads, each with its head."""
    rows = [(prefix, row) for prefix, row in rows_of(network) if prefix.startswith("head.")]
    return [(f"{prefix}.{row}", row) for prefix, row in rows]


def describe(moves: Iterable[Move]) -> str:
    """Return a table of moves, a line for each module, outcome and reason.

    Where these are not the same for all tensors of a module, its lines name them.
    """
    # A module may have its place in both networks and be received from elsewhere.
    modules: dict[tuple[str, bool], dict[tuple[str, str], list[str]]] = {}
    for name, source, outcome, reason in moves:
        told = reason or ("" if source == name or source is None else f"from {module_of(source)}")
        fates = modules.setdefault((module_of(name), outcome == "ignored"), {})
        fates.setdefault((outcome, told), []).append(name)
    lines = [("weights", "outcome", "reason")]
    for (module, _), fates in modules.items():
        for fate, names in fates.items():
            lines.append((module if len(fates) == 1 else _enumerated(names), *fate))
    width, kind = (max(len(line[column]) for line in lines) for column in range(2))
    return "\n".join(f"{w:{width}}  {o:{kind}}  {r}".rstrip() for w, o, r in lines)


def _enumerated(names: Sequence[str]) -> str:
    """Return the names of a module's tensors, the module's own but once."""
    return ", ".join([names[0], *(name.rpartition(".")[2] for name in names[1:])])


def _move(
    name: str,
    own: Tensor,
    source: str,
    found: Mapping[str, Tensor],
    unlike: str | None,
) -> Move:
    if source not in found:
        return Move(name, None, "fresh", f"the source has no {_missing(source, found)}")
    mine, theirs = tuple(own.shape), tuple(found[source].shape)
    if mine == theirs and unlike is None:
        return Move(name, source, "moved", "")
    reason = unlike or f"{mine}, in the source {theirs}"
    # The corner of a larger kernel sees something else.
    fits = unlike is None and len(mine) == len(theirs) and mine[2:] == theirs[2:]
    return Move(name, source, "adapted", reason) if fits else Move(name, None, "fresh", reason)


def _require_exact(
    asked: str, moves: Iterable[Move], sources: Mapping[str, str], found: Mapping[str, Tensor]
) -> None:
    """Refuse wanted tensors that do not come as a whole."""
    lacking = {_missing(sources[m.name], found) for m in moves if sources[m.name] not in found}
    must = f"have {sorted(lacking)} for what `parts` ask for, unless `exact` is false"
    require(not lacking, asked, must, modules_of(found))
    for name, _, outcome, reason in moves:
        fits = f"have a {sources[name]} that fits the model's {name} as a whole"
        require(outcome == "moved", asked, f"{fits}, unless `exact` is false", reason)


def _missing(name: str, names: Iterable[str]) -> str:
    """Return a name that others lack, or its module where they have nothing of that."""
    module = module_of(name)
    return name if any(begins(other, module) for other in names) else module


def _require_tasks(
    asked: str, tasks: Mapping[str, str], network: nn.Module, found: Mapping[str, Tensor]
) -> None:
    rows = {row for _, row in rows_of(network)}
    must = f"name tasks and heads among {sorted(rows)}"
    require(set(tasks) <= rows, asked, must, sorted(tasks))
    words = {word for key in found for word in module_of(key).split(".")}
    must = f"give names of tasks and heads that the source has, in {modules_of(found)}"
    require(set(tasks.values()) <= words, asked, must, sorted(tasks.values()))


def _require_names(
    asked: str, names: Mapping[str, str], own: Iterable[str], found: Iterable[str]
) -> None:
    for mine, theirs in names.items():
        must = f"name beginnings of {modules_of(own)}"
        require(any(begins(key, mine) for key in own), asked, must, mine)
        must = f"give beginnings that the source has, of {modules_of(found)}"
        require(any(begins(key, theirs) for key in found), asked, must, theirs)


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
                reasons[name] = f"{places} places of an image, in the source {theirs}"
    return reasons


def _ignored(name: str, own: Mapping[str, Tensor]) -> Move:
    reason = "not asked for" if name in own else f"the model has no {_missing(name, own)}"
    return Move(name, name, "ignored", reason)


def _common(own: Tensor, other: Tensor) -> tuple[slice, ...]:
    return tuple(slice(min(sizes)) for sizes in zip(own.shape, other.shape, strict=True))


def _source_of(
    network: nn.Module, name: str, tasks: Mapping[str, str], names: Mapping[str, str]
) -> str:
    """Return the giving network's name of a tensor: by the longest beginning, else by its task."""
    for own in sorted(names, key=len, reverse=True):
        if begins(name, own):
            return names[own] + name.removeprefix(own)
    for prefix, own in rows_of(network):
        if begins(name, f"{prefix}.{own}"):
            # Rows of pairs are called `to.source`.
            theirs = ".".join(tasks.get(word, word) for word in own.split("."))
            return f"{prefix}.{theirs}{name.removeprefix(f'{prefix}.{own}')}"
    return name
