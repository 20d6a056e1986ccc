"""A run on disk that can act again."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lit_mtdqn.algorithms.factories import trusted_class
from lit_mtdqn.algorithms.saved_policy import SavedPolicy
from lit_mtdqn.analysis.checkpoints import find_checkpoint
from lit_mtdqn.analysis.run_search import CONFIG
from lit_mtdqn.envs import Layout, probe_tasks
from lit_mtdqn.types import TaskInfo, TaskSpec, as_task_specs, require


@dataclass(frozen=True, kw_only=True)
class SavedTasks:
    """The tasks of a run: what a data module would say of them.

    Attributes:
        tasks: The tasks by name.
        layout: Padded shapes.
        task_infos: What probing the environments has told.
        eval_max_steps: Env steps after which an episode is left as it stands.
    """

    tasks: Mapping[str, TaskSpec]
    layout: Layout
    task_infos: Sequence[TaskInfo]
    eval_max_steps: int


class SavedRun(NamedTuple):
    """A run, as its folder describes it.

    Attributes:
        folder: Its folder.
        checkpoint: The checkpoint that was read.
        policy: The network that acts.
        data: Its tasks.
    """

    folder: Path
    checkpoint: Path
    policy: SavedPolicy
    data: SavedTasks


def read_run(source: str, name: str) -> SavedRun:
    """Return a run that can act.

    Of a checkpoint tensors and plain values are read. Only classes of this package and of PyTorch
    are imported on its word; further ones if the run's own `config.yaml` names them, too.

    Args:
        source: Folder of a run, whose last network is taken, or a checkpoint in one.
        name: What the user calls it, for complaints.

    Raises:
        ValueError: If it is no checkpoint of this package, does not lie in the folder of its run,
            or the environments are not those that it has learned.
    """
    checkpoint = find_checkpoint([source], "last", name)
    folder = next((f for f in checkpoint.resolve().parents[1:3] if (f / CONFIG).is_file()), None)
    must = f"lie in the folder of its run, whose {CONFIG} names the tasks"
    require(folder is not None, name, must, str(checkpoint))
    assert folder is not None
    folder = Path(source) if Path(source).is_dir() else folder
    config = yaml.safe_load((folder / CONFIG).read_text())
    must = "name tasks under `data.tasks`, as `lit-mtdqn fit` writes it"
    found = config.get("data") if isinstance(config, dict) else None
    require(isinstance(found, dict) and "tasks" in found, str(folder / CONFIG), must, found)
    assert isinstance(found, dict)
    try:
        policy = SavedPolicy(str(checkpoint), name, _own_classes(config.get("model")))
    except TypeError as error:
        must = f"be built of parts of lit_mtdqn, of PyTorch, or that its {CONFIG} names"
        raise ValueError(f"`{name}` must {must}. Got {checkpoint}: {error}") from error
    named = as_task_specs(found["tasks"])
    # The numbers of tasks are those of the checkpoint, whatever the order in the file.
    specs = {info.name: named.pop(info.name) for info in policy.tasks if info.name in named} | named
    layout, infos = probe_tasks(specs)
    _check_same(policy.tasks, infos, name)
    steps = int(found.get("eval_max_steps", 10_000))
    data = SavedTasks(tasks=specs, layout=layout, task_infos=infos, eval_max_steps=steps)
    return SavedRun(folder, checkpoint, policy, data)


def _check_same(known: Sequence[TaskInfo], probed: Sequence[TaskInfo], name: str) -> None:
    """Refuse environments that are not those of the network."""

    def sizes(infos: Sequence[TaskInfo]) -> dict[str, Any]:
        return {info.name: (info.observation_shape, info.num_actions) for info in infos}

    must = f"have learned what its {CONFIG} makes: tasks, observations, actions {sizes(probed)}"
    require(sizes(known) == sizes(probed), name, must, sizes(known))


def _own_classes(model: Any) -> dict[str, type]:
    """Return the classes that a configuration names and this package would not import by itself.

    Args:
        model: Plain values.

    Returns:
        By their full names, as checkpoints have them.
    """
    found = {}
    for path in _class_paths(model):
        module, _, attribute = path.rpartition(".")
        if trusted_class(path) is None and module:
            cls = getattr(importlib.import_module(module), attribute, None)
            if inspect.isclass(cls):
                found[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return found


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        path = value.get("class_path")
        if isinstance(path, str):
            yield path
        for entry in value.values():
            yield from _class_paths(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _class_paths(entry)
