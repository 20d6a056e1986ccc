"""What a checkpoint of this package looks like."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from lit_mtdqn.types import as_task_infos

ONLINE = "network."
EXTRA_STATE = "_extra_state"
SCALE_STATE = f"scale.{EXTRA_STATE}"
# Takes a condition, what it demands of a checkpoint, and what was found.
Demand = Callable[[bool, str, object], None]


def check_form(saved: Any, path: Path, name: str) -> dict[str, Any]:
    """Return what a checkpoint holds, if readers can rely on its form.

    Args:
        saved: Tensors and plain values.
        path: Its file, for complaints.
        name: What the user calls it, for complaints.

    Raises:
        ValueError: If it is no checkpoint of this package.
    """

    def demand(condition: bool, must: str, found: object) -> None:
        if not condition:
            must = f"be a checkpoint of this package, {must}"
            raise ValueError(f"`{name}` must {must}. Got {path}: {reprlib.repr(found)}.")

    _check_state(saved, demand)
    given = saved.get("hyper_parameters")
    _check_hyperparameters(given, demand)
    _check_scale(given.get("scale"), saved["state_dict"], demand)
    checkpoint: dict[str, Any] = saved
    return checkpoint


def is_entry(value: Any) -> bool:
    """Return whether a plain value describes a class."""
    return isinstance(value, Mapping) and "class_path" in value


def _check_state(saved: Any, demand: Demand) -> None:
    """Check that there are weights, and that they are tensors."""
    state = saved.get("state_dict") if isinstance(saved, dict) else None
    found = list(saved) if isinstance(saved, dict) else type(saved).__name__
    demand(_has_names(state), "with a `state_dict`", found if state is None else state)
    assert state is not None
    has_weights = any(key.startswith(ONLINE) for key in state)
    demand(has_weights, f"with weights under `{ONLINE}`", list(state))
    odd = {
        key: type(value).__name__
        for key, value in state.items()
        if not (isinstance(value, Tensor) or key.endswith(EXTRA_STATE))
    }
    demand(not odd, "with a `state_dict` of tensors", odd)


def _check_hyperparameters(given: Any, demand: Demand) -> None:
    """Check that they describe tasks, and classes where a learner has them."""
    names_both = _has_names(given) and {"tasks", "network"} <= set(given)
    told = list(given) if isinstance(given, Mapping) else given
    demand(names_both, "with `hyper_parameters` that name tasks and network", told)
    must = "whose `tasks` each have a name, an observation_shape and num_actions"
    demand(_describe_tasks(given["tasks"]), must, given["tasks"])
    must = "with a `network` in its `hyper_parameters` that names its class"
    demand(is_entry(given["network"]), must, given["network"])
    must = "whose `hyper_parameters` describe classes by `class_path` and `init_args`"
    malformed = next(_malformed(given), None)
    demand(malformed is None, must, malformed)


def _describe_tasks(tasks: Any) -> bool:
    try:
        return len(as_task_infos(tasks)) >= 1
    except (AttributeError, TypeError, ValueError):
        return False


def _check_scale(scale: Any, state: Mapping[str, Any], demand: Demand) -> None:
    """Check that a scale is named where there are statistics of one, and the other way round."""
    must = "with a `scale` in its `hyper_parameters` that is null or names its class"
    demand(scale is None or is_entry(scale), must, scale)
    statistics = state.get(SCALE_STATE)
    must = "that names the `scale` that it has statistics of"
    demand(scale is not None or statistics is None, must, scale)
    must = f"with statistics of its `scale` as `{SCALE_STATE}`"
    by_task = statistics if _has_names(statistics) else {"": statistics}
    are_tensors = all(isinstance(value, Tensor) for value in by_task.values())
    demand(scale is None or are_tensors, must, statistics)


def _malformed(value: Any) -> Iterator[Any]:
    """Yield what would describe a class and does not."""
    if isinstance(value, Mapping) and ("class_path" in value or "init_args" in value):
        init_args = value.get("init_args")
        has_arguments = init_args is None or _has_names(init_args)
        if not (isinstance(value.get("class_path"), str) and has_arguments):
            yield value
    if isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _malformed(entry)


def _has_names(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
