"""An episode of a task of a run, as pictures."""

from __future__ import annotations

from typing import Any

from lit_mtdqn.rollout.recording import Recording, record_episode
from lit_mtdqn.types import ActionValues


def film(policy: ActionValues, data: Any, task: str) -> Recording:
    """Play the first test episode of a task once more and film it.

    Args:
        policy: Acts.
        data: Data module of the run.
        task: Name of the task.

    Raises:
        UnrenderableError: If the environment gives no pictures.
    """
    index = list(data.tasks).index(task)
    return record_episode(
        policy,
        task,
        data.tasks[task],
        data.layout,
        index,
        num_actions=data.task_infos[index].num_actions,
        max_steps=data.eval_max_steps,
    )
