"""Parts of a model as plain values, so that a checkpoint describes itself and runs no code.

A factory is a class, or a class with some arguments bound. Its plain form is
`{"class_path": ..., "init_args": {...}}`, the same that configuration files use.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lit_mtdqn.analysis.checkpoint_form import is_entry
from lit_mtdqn.objectives import TD
from lit_mtdqn.types import Schedule, TaskInfo

TRUSTED_PACKAGES = ("lit_mtdqn", "torch.nn", "torch.optim", "torchjd")
BUILDABLE = (nn.Module, torch.optim.Optimizer, Schedule, TD)


def as_plain(value: Any, name: str) -> Any:
    """Return a hyperparameter as numbers, strings, lists and dicts.

    Args:
        value: Anything a learner's constructor takes.
        name: Its name, for complaints.

    Raises:
        TypeError: If it is a lambda, a function or an object that no configuration could name.
    """
    match value:
        case np.generic():
            return value.item()
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {key: as_plain(entry, f"{name}.{key}") for key, entry in value.items()}
        case list() | tuple():
            return [as_plain(entry, name) for entry in value]
        case TaskInfo():
            return as_plain(value.as_dict(), name)
        case Schedule() if is_dataclass(value):
            return _entry(type(value), {f.name: getattr(value, f.name) for f in fields(value)})
        case functools.partial() if inspect.isclass(value.func) and not value.args:
            bound = {key: as_plain(entry, f"{name}.{key}") for key, entry in value.keywords.items()}
            return _entry(value.func, bound)
        case type():
            return _entry(value, {})
    if is_dataclass(value) and not isinstance(value, type):
        return as_plain(asdict(value), name)
    raise TypeError(
        f"`{name}` must be a class, or `functools.partial` of a class with keyword arguments, so "
        f"that a checkpoint can name it. Got {value!r}."
    )


def _entry(cls: type, init_args: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": init_args}


def as_factory(value: Any) -> Callable[..., Any]:
    """Return a factory as something to call, from any of its forms."""
    factory: Callable[..., Any] = _without_parser(from_plain(value, "factory"))
    return factory


def _without_parser(value: Any) -> Any:
    """Return what a command line has bound, without the parser that it came from.

    Networks keep factories, and one that holds a parser can neither be copied soon nor be sent to
    another process.
    """
    if type(value) in (list, tuple):
        return type(value)(_without_parser(entry) for entry in value)
    if isinstance(value, Mapping):
        return {key: _without_parser(entry) for key, entry in value.items()}
    if not isinstance(value, functools.partial):
        return value
    bound = {key: _without_parser(entry) for key, entry in value.keywords.items()}
    # jsonargparse binds a function of its own, and to it the class that it is to call.
    is_wrapped = not inspect.isclass(value.func) and value.args and inspect.isclass(value.args[-1])
    if is_wrapped:
        return functools.partial(value.args[-1], **bound)
    return functools.partial(value.func, *value.args, **bound)


def from_plain(value: Any, name: str, own: Mapping[str, type] | None = None) -> Any:
    """Turn a checkpoint's plain value back into what a constructor takes.

    Only classes of this package and of `torch.nn` and `torch.optim` are imported, and only those
    that build networks, optimisers, schedules or objectives.

    Args:
        value: The plain value.
        name: Its name, for complaints.
        own: Further classes that it may name, by their full names.

    Raises:
        TypeError: If it names anything else; the message says which argument to pass.
    """
    if isinstance(value, list):
        return [from_plain(entry, name, own) for entry in value]
    if isinstance(value, Mapping) and not is_entry(value):
        return {key: from_plain(entry, f"{name}.{key}", own) for key, entry in value.items()}
    if not is_entry(value):
        return value
    cls = (own or {}).get(value["class_path"]) or trusted_class(value["class_path"])
    if cls is None:
        raise TypeError(
            f"`{name}` must be passed to `load_from_checkpoint`: the checkpoint names what is no "
            f"network, optimiser, schedule or objective of lit_mtdqn or PyTorch. Got "
            f"{value['class_path']!r} with {value.get('init_args')}."
        )
    init_args = value.get("init_args") or {}
    bound = {key: from_plain(entry, f"{name}.{key}", own) for key, entry in init_args.items()}
    if issubclass(cls, Schedule):
        return cls(**bound)
    return functools.partial(cls, **bound)


def trusted_class(path: object) -> type | None:
    """Return a class that a checkpoint may name, or None."""
    if not isinstance(path, str):
        return None
    module, _, attribute = path.rpartition(".")
    if not any(module == p or module.startswith(f"{p}.") for p in TRUSTED_PACKAGES):
        return None
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    return found if inspect.isclass(found) and issubclass(found, BUILDABLE) else None


def own_classes(config: Any) -> dict[str, type]:
    """Return the classes that a configuration names and this package would not import by itself.

    Args:
        config: Plain values.

    Returns:
        By their full names, as checkpoints have them; without those that cannot be imported.
    """
    found = {}
    for path in class_paths(config):
        module, _, attribute = path.rpartition(".")
        if trusted_class(path) is None and module:
            with contextlib.suppress(ImportError):
                cls = getattr(importlib.import_module(module), attribute, None)
                if inspect.isclass(cls):
                    found[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return found


def class_paths(value: Any) -> Iterator[str]:
    """Yield the paths of all classes that plain values name."""
    if isinstance(value, Mapping):
        path = value.get("class_path")
        if isinstance(path, str):
            yield path
        for entry in value.values():
            yield from class_paths(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from class_paths(entry)
