"""An episode of a task of a run, as pictures."""

from __future__ import annotations

from typing import Any

from lit_mtdqn.rollout.recording import MAX_FRAMES, Recording, record_episode
from lit_mtdqn.rollout.seeding import TEST_SEED
from lit_mtdqn.types import ActionValues


def film(
    policy: ActionValues,
    data: Any,
    task: str,
    *,
    seed: int = TEST_SEED,
    max_frames: int = MAX_FRAMES,
) -> Recording:
    """Play a greedy episode of a task and film it: by default, the first of the test once more.

    Args:
        policy: Acts.
        data: Data module of the run, or what a saved run has in its place.
        task: Name of the task.
        seed: Seed of the start.
        max_frames: Most frames kept; of a longer episode every second, fourth, ... state is.

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
        seed=seed,
        max_frames=max_frames,
    )
