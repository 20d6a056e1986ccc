"""The padded shapes that all tasks of a run share, found by probing their environments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from lit_mtdqn.envs.making import make_vector_env, without_processes
from lit_mtdqn.envs.observations import ObservationAdapter, adapter_for
from lit_mtdqn.types import TaskInfo, TaskSpec, require

Array = np.ndarray


@dataclass(frozen=True)
class Layout:
    """Padded shapes of a run.

    Attributes:
        observation_shape: (size,) or (channels, height, width).
        num_actions: The largest number of actions.
        dtype: float32 or uint8.
    """

    observation_shape: tuple[int, ...]
    num_actions: int
    dtype: np.dtype[Any]

    @property
    def observation_bytes(self) -> int:
        """Size of one padded observation."""
        return math.prod(self.observation_shape) * self.dtype.itemsize

    def empty_observation(self, num_envs: int) -> Array:
        """Return zeros for one row of observations, [N, *O]."""
        return np.zeros((num_envs, *self.observation_shape), self.dtype)

    def action_mask(self, num_actions: int) -> Array:
        """Return which of the padded actions a task with `num_actions` has, Booleans [A]."""
        mask: Array = np.arange(self.num_actions) < num_actions
        return mask


def probe_tasks(tasks: Mapping[str, TaskSpec]) -> tuple[Layout, list[TaskInfo]]:
    """Build each environment once, read its spaces and close it.

    Args:
        tasks: Specs by task name.

    Returns:
        The layout and what the learner needs to know of each task, in the order of `tasks`.

    Raises:
        ValueError: If an environment cannot be built or its spaces cannot be used together.
    """
    require(len(tasks) >= 1, "tasks", "hold at least one task", dict(tasks))
    adapters: dict[str, ObservationAdapter] = {}
    actions: dict[str, int] = {}
    for name, spec in tasks.items():
        require(
            isinstance(name, str) and name.isidentifier(), "tasks", "have identifiers as keys", name
        )
        env = make_vector_env(name, without_processes(spec), 1)
        try:
            adapters[name] = adapter_for(env.single_observation_space, name)
            actions[name] = int(checked_action_space(env.single_action_space, name).n)
        finally:
            env.close()
    layout = Layout(_common_shape(adapters), max(actions.values()), _common_dtype(adapters))
    infos = [
        TaskInfo(
            name=name,
            observation_shape=layout.observation_shape,
            own_shape=adapters[name].shape,
            observation_kind=adapters[name].kind,
            observation_high=max(adapter.high for adapter in adapters.values()),
            num_actions=actions[name],
            head=spec.head or name,
            learns=spec.learns,
            weight=spec.weight,
            score_range=spec.score_range,
        )
        for name, spec in tasks.items()
    ]
    return layout, infos


def checked_action_space(space: gymnasium.Space[Any], task: str) -> spaces.Discrete:
    """Return a discrete action space as such.

    Raises:
        ValueError: If it is not discrete; the message names a wrapper that helps.
    """
    if isinstance(space, spaces.Discrete):
        return space
    if isinstance(space, spaces.Box):
        help_ = (
            "Add `wrappers: [{class_path: gymnasium.wrappers.DiscretizeAction, "
            "init_args: {bins: 5}}]` to the task."
        )
    else:
        help_ = "Wrap it with a `gymnasium.ActionWrapper` whose `action_space` is `Discrete`."
    raise ValueError(f"`tasks.{task}.env` must have a discrete action space. Got {space}. {help_}")


def _common_shape(adapters: Mapping[str, ObservationAdapter]) -> tuple[int, ...]:
    shapes = {name: adapter.shape for name, adapter in adapters.items()}
    kinds = {name: adapter.kind for name, adapter in adapters.items()}
    if len(set(kinds.values())) > 1:
        raise ValueError(
            "`tasks` must have observations of one kind, all vectors or all images. "
            f"Got {kinds}. Wrap the images with `gymnasium.wrappers.FlattenObservation`."
        )
    sizes = {shape[1:] for shape in shapes.values()}
    if len(sizes) > 1:
        raise ValueError(
            "`tasks` must have images of one height and width. "
            f"Got {shapes}. Wrap them with `gymnasium.wrappers.ResizeObservation`."
        )
    return (max(shape[0] for shape in shapes.values()), *sizes.pop())


def _common_dtype(adapters: Mapping[str, ObservationAdapter]) -> np.dtype[Any]:
    return next(iter(adapters.values())).dtype
