"""Shipped configurations with a mistake in each, drawn by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

SMOKE = Path("configs/overlays/smoke.yaml")
BASE = Path("configs/driving/three_tasks.yaml")
WITH_TARGET = Path("configs/adaptation/shifted_driving.yaml")
# What needs an earlier run, or software that is not always there.
PARTICULAR = (
    "runs/",
    "kind: dam",
    "envpool",
    "SuccessorHead",
    "PartLearningRates",
    "PolicyDistillation",
    "kind: q_match",
)
RUNS = [Path("configs") / name for name in ("dqn", "driving", "multitask", "pqn", "adaptation")]
METHODS = Path("configs/methods")

Place = tuple[Any, ...]


class Mutation(NamedTuple):
    """A configuration file with a mistake.

    Attributes:
        configs: Sound configurations that come before it on the command line.
        text: The file.
        says: What was done to what.
        names: Words of which a complaint must hold one, each in the configuration.
        is_nonsense: Whether no run may take it for an argument.
    """

    configs: list[Path]
    text: bytes
    says: str
    names: list[str]
    is_nonsense: bool = False


def mutated(seed: int) -> Mutation:
    """Return a shipped configuration with one mistake."""
    random = Random(seed)
    path = random.choice(_files())
    is_method = path.parent == METHODS
    config = yaml.safe_load(path.read_text())
    if not is_method:
        config = _merged(config, yaml.safe_load(SMOKE.read_text()))
    base = WITH_TARGET if "objectives.Align" in path.read_text() else BASE
    configs = [base, SMOKE] if is_method else []
    change = random.choice(CHANGES)
    # A complaint may be of what the changed part does not go with.
    others = [str(key) for place in _places(config) for key in place[-1:]]
    text, says, names, is_nonsense = change(random, config)
    names += others
    return Mutation(configs, text, f"{path}: {says}", names, is_nonsense)


Changed = tuple[bytes, str, list[str], bool]


def _files() -> list[Path]:
    found = [*METHODS.glob("*.yaml"), *(path for folder in RUNS for path in folder.glob("*.yaml"))]
    return sorted(p for p in found if not any(word in p.read_text() for word in PARTICULAR))


def _merged(config: Any, other: Any) -> Any:
    if not isinstance(config, dict) or not isinstance(other, dict):
        return other
    return {**config, **{k: _merged(config.get(k), v) for k, v in other.items()}}


def _places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Return where everything of a configuration lies."""
    if place:
        yield place
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, entry in entries:
        yield from _places(entry, (*place, key))


def _at(config: Any, place: Place) -> Any:
    for key in place:
        config = config[key]
    return config


def _names(place: Place) -> list[str]:
    # A class may complain of an argument, and whoever holds a part of the part.
    return [*[str(key) for key in place if isinstance(key, str)][-3:], "config"]


def _dump(config: Any) -> bytes:
    text: str = yaml.safe_dump(config, sort_keys=False)
    return text.encode()


def _delete(random: Random, config: Any) -> Changed:
    place = random.choice(list(_places(config)))
    del _at(config, place[:-1])[place[-1]]
    return _dump(config), f"without {place}", _names(place), False


def _rename(random: Random, config: Any) -> Changed:
    place = random.choice([p for p in _places(config) if isinstance(p[-1], str)])
    holder, old = _at(config, place[:-1]), place[-1]
    new = random.choice([f"{old}x", old[1:], old.upper(), f"{old} ", "", "nonsense", 3, None])
    renamed = {new if key == old else key: entry for key, entry in holder.items()}
    holder.clear()
    holder.update(renamed)
    return _dump(config), f"{place} as {new!r}", [*_names(place), str(new)], False


NUMBERS = [float("inf"), -float("inf"), -1, -0.5, 0, 0.5, 10**9, 10**18, 10**400, 1e300]
VALUES: list[Any] = [
    "",
    "nonsense",
    "1e-3x",
    None,
    True,
    [],
    {},
    [1, 2],
    [[]],
    {"a": 1},
    "../..",
    "é\0",
]


def _value(random: Random, config: Any) -> Changed:
    place = random.choice(list(_places(config)))
    value = random.choice([*NUMBERS, *VALUES])
    _at(config, place[:-1])[place[-1]] = deepcopy(value)
    return _dump(config), f"{place} = {str(value)[:30]!r}", _names(place), False


def _number(random: Random, config: Any) -> Changed:
    found = [p for p in _places(config) if type(_at(config, p)) in (int, float)]
    if not found:
        return _value(random, config)
    place = random.choice(found)
    value = random.choice(NUMBERS)
    _at(config, place[:-1])[place[-1]] = value
    return _dump(config), f"{place} = {str(value)[:30]}", _names(place), False


def _no_number(random: Random, config: Any) -> Changed:
    found = [p for p in _places(config) if type(_at(config, p)) in (int, float)]
    place = random.choice(found or list(_places(config)))
    _at(config, place[:-1])[place[-1]] = float("nan")
    return _dump(config), f"{place} = nan", _names(place), True


CLASSES = [
    *("lit_mtdqn.NoSuch", "no.such.Module", "os.system", "torch.nn.Linear", "builtins.print", ""),
    *("lit_mtdqn.networks.MLPTorso", "lit_mtdqn.DQN", "NoSuch", "a b", 3, None, "lit_mtdqn"),
    *("lit_mtdqn.callbacks.EpsilonDecay", "torch.optim.LBFGS", "torch.optim.SGD", "..", "."),
]


def _class_path(random: Random, config: Any) -> Changed:
    found = [place for place in _places(config) if place[-1] == "class_path"]
    if not found:
        return _value(random, config)
    place = random.choice(found)
    value = random.choice(CLASSES)
    _at(config, place[:-1])["class_path"] = value
    return _dump(config), f"{place} = {value!r}", [*_names(place), str(value)], False


def _swap(random: Random, config: Any) -> Changed:
    one, other = (random.choice(list(_places(config))) for _ in range(2))
    if one[: len(other)] == other or other[: len(one)] == one:
        return _value(random, config)
    first, second = _at(config, one), _at(config, other)
    _at(config, one[:-1])[one[-1]] = second
    _at(config, other[:-1])[other[-1]] = first
    names = [*_names(one), *_names(other)]
    names += [str(key) for part in (first, second) if isinstance(part, dict) for key in part]
    return _dump(config), f"{one} and {other} swapped", names, False


ENVS = [
    "NoSuch-v0",
    "no_such:Env",
    "os:system",
    "CartPole",
    "Pendulum-v1",
    "",
    ":",
    "a:b:c",
    "json",
]
NAMES = ["my task", "mean", "1a", "", "a.b", "a/b", "é", "class_path", "worst", 3, None, True]


def _task(random: Random, config: Any) -> Changed:
    tasks = config.get("data", {}).get("tasks")
    if not tasks:
        return _value(random, config)
    name = random.choice(list(tasks))
    if random.random() < 0.5:
        tasks[name]["env"] = env = random.choice(ENVS)
        return _dump(config), f"env {env!r} of {name}", ["env"], False
    new = random.choice(NAMES)
    tasks[new] = tasks.pop(name)
    return _dump(config), f"task {name} called {new!r}", ["task", str(new)], False


def _wrap(random: Random, config: Any) -> Changed:
    place = random.choice(list(_places(config)))
    value = _at(config, place)
    new: Any = {"value": value}
    if random.random() < 0.5:
        new = value[0] if isinstance(value, list) and value else [value]
    _at(config, place[:-1])[place[-1]] = new
    return _dump(config), f"{place} wrapped as {type(new).__name__}", _names(place), False


def _twice(random: Random, config: Any) -> Changed:
    lines = _dump(config).decode().splitlines()
    number = random.choice([n for n, line in enumerate(lines) if ":" in line])
    key = lines[number].strip().removeprefix("- ").partition(":")[0]
    line = lines[number].replace("- ", "  ", 1)
    text = "\n".join([*lines[: number + 1], line.split(":")[0] + ": 1", *lines[number + 1 :]])
    return f"{text}\n".encode(), f"{key!r} twice", [key, "config"], False


INSERTED = [*"{}[]:,&*!%@`'\"|>-?#\t\0\\", "!!python/object/apply:os.abort []", "<<: *a", "---\n"]


def _text(random: Random, config: Any) -> Changed:
    text = _dump(config)
    place = random.randrange(len(text))
    piece = random.choice(INSERTED).encode()
    kind = random.choice(["cut", "cut off", "inserted", "replaced", "bytes"])
    if kind == "cut":
        text = text[:place] + text[place + random.randint(1, 5) :]
    elif kind == "cut off":
        text = text[:place]
    elif kind == "bytes":
        text = text[:place] + bytes([random.randrange(128, 256)]) + text[place:]
    else:
        text = text[:place] + piece + text[place + (kind == "replaced") :]
    return text, f"{kind} at byte {place} {piece!r}", ["*"], False


ROOTS = [b"", b"3", b"[]", b"- a", b"null", b"nonsense", b"a: &a [*a]", b"\xff\xfe", b"{}", b"true"]


def _root(random: Random, config: Any) -> Changed:
    root = random.choice(ROOTS)
    return root, f"replaced by {root!r}", ["*"], False


CHANGES: list[Callable[[Random, Any], Changed]] = [
    *(_delete, _rename, _value, _value, _number, _number, _no_number, _class_path, _swap),
    *(_task, _wrap, _twice, _text, _text, _root),
]
