"""A run on disk that can act again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lit_mtdqn.algorithms.saved_policy import SavedPolicy
from lit_mtdqn.analysis.checkpoints import find_checkpoint
from lit_mtdqn.analysis.found_runs import read_config
from lit_mtdqn.analysis.run_search import CONFIG, run_of
from lit_mtdqn.deployment.acting import Actor
from lit_mtdqn.deployment.greedy_policy import GreedyPolicy
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

    def actor(self, task: str | None = None) -> Actor:
        """Return what takes greedy actions in a task, given raw observations of its environment.

        Args:
            task: Its name; None takes the only one.

        Raises:
            ValueError: If there is no such task, or more than one and none is named.
        """
        names = list(self.data.tasks)
        if task is None and len(names) == 1:
            (task,) = names
        require(task in names, "task", f"be one of {names}", task)
        assert task is not None
        greedy = GreedyPolicy(self.policy.network, self.policy.scale)
        return Actor(greedy, task, self.data.tasks[task], names.index(task), self.data.layout)


def read_run(source: str, name: str = "source") -> SavedRun:
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
    folder = run_of(checkpoint)
    must = f"lie in the folder of its run, whose {CONFIG} names the tasks"
    require(folder is not None, name, must, str(checkpoint))
    assert folder is not None
    folder = Path(source) if Path(source).is_dir() else folder
    must = "name tasks under `data.tasks`, as `lit-mtdqn fit` writes it"
    found = read_config(folder, name).get("data")
    require(isinstance(found, dict) and "tasks" in found, str(folder / CONFIG), must, found)
    assert isinstance(found, dict)
    policy = SavedPolicy(str(checkpoint), name)
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
