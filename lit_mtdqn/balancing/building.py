"""Parts of torchjd out of what a configuration says of them."""

from __future__ import annotations

import importlib
import inspect
from functools import partial
from typing import Any

from torch import nn

from lit_mtdqn.types import require


def build_part(
    base: type[nn.Module], factory: dict[str, Any] | type | partial[Any], **known: int
) -> Any:
    """Return the part that a factory makes, or a mapping with `class_path` and `init_args` names.

    Args:
        base: What it must be.
        factory: The factory or the mapping.
        **known: Arguments for those parts that have them and were not given them.

    Raises:
        ValueError: If there is no such class, or arguments do not fit it.
    """
    name = base.__name__.lower()
    if isinstance(factory, dict):
        cls = _class_at(factory.get("class_path"))
        fits = cls is not None and issubclass(cls, base)
        must = f"have the `class_path` of one of torchjd's {name}s"
        require(fits, name, must, factory.get("class_path"))
        assert cls is not None
        factory = partial(cls, **(factory.get("init_args") or {}))
    given = factory.keywords if isinstance(factory, partial) else {}
    function = factory.func if isinstance(factory, partial) else factory
    signature = inspect.signature(function)
    arguments = {key: value for key, value in known.items() if key in signature.parameters}
    arguments.update(given)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        must = f"fit {function.__name__}{signature}"
        raise ValueError(f"`{name}.init_args` must {must}. Got {arguments}: {error}.") from error
    part = function(**arguments)
    assert isinstance(part, base)
    return part


def _class_at(path: object) -> type | None:
    module, _, name = str(path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        return None
    return found if inspect.isclass(found) else None
