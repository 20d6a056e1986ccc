"""Episodes to look at."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from lit_mtdqn.envs import TaskEnv, without_processes
from lit_mtdqn.rollout import play_episodes
from lit_mtdqn.types import ActionValues, Episodes


def watch(policy: ActionValues, data: Any, task: str, *, seed: int, window: bool) -> Episodes:
    """Play a greedy episode of a task.

    Args:
        policy: Acts.
        data: Data module of the run, or what a saved run has in its place.
        task: Name of the task.
        seed: Seed of the start.
        window: Whether the environment shows it in a window, at its own speed.

    Raises:
        ValueError: If a window is asked for and the environment has none.
    """
    spec, index = without_processes(data.tasks[task]), list(data.tasks).index(task)
    env = _shown(task, spec, data.layout) if window else TaskEnv(task, spec, 1, data.layout)
    try:
        return play_episodes(
            policy,
            env,
            index,
            num_actions=data.task_infos[index].num_actions,
            epsilon=0.0,
            seed=seed,
            max_steps=data.eval_max_steps,
        )
    finally:
        env.close()


def _shown(task: str, spec: Any, layout: Any) -> TaskEnv:
    # Batched forms have no windows.
    backend = "sync" if spec.backend in ("auto", "vector") else spec.backend
    problem, modes = "", []
    try:
        with warnings.catch_warnings():
            # Gymnasium's about an unknown render mode; the error says the same.
            warnings.simplefilter("ignore")
            env = TaskEnv(task, replace(spec, backend=backend), 1, layout, render_mode="human")
        modes = list(env.env.metadata.get("render_modes", []))
        if "human" in modes:
            return env
        env.close()
    except ValueError as error:
        problem = (str(error).splitlines() or [""])[0]
    raise ValueError(
        f"`--window` must be asked for tasks whose environments show one. Got {task!r}: "
        f"{problem or f'its render modes are {modes}'}. Leave it out for a GIF."
    )
