"""Whether an exported policy acts as the network does, on what the network gets to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from lit_mtdqn.envs import TaskEnv
from lit_mtdqn.rollout.evaluation import Player
from lit_mtdqn.rollout.seeding import TEST_SEED
from lit_mtdqn.types import ActionValues

Array = np.ndarray
# Actions [S, N] and values [S, N, A] of observations, tasks and allowed actions.
Acts = Callable[[Array, Array, Array], tuple[Array, Array]]
COPIES = 8
AT_A_TIME = 1000
# Relative to the largest value: sums of float32 in another order differ by no more.
ROUNDING = 1e-5
# The same after many layers; a lost scale or offset is more.
TOLERANCE = 1e-3


class Seen(NamedTuple):
    """What was met in episodes.

    Attributes:
        observation: [N, *O].
        allowed: [N, A].
    """

    observation: Array
    allowed: Array


class Parity(NamedTuple):
    """How an exported policy compares with the network on one task.

    Attributes:
        task: Its name.
        observations: Number of observations.
        same: How many of them have the same greedy action.
        ties: How many of the others have two actions that the network itself rates as equal, to
            within rounding.
        difference: Largest difference of values, over the largest value.
    """

    task: str
    observations: int
    same: int
    ties: int
    difference: float

    @property
    def holds(self) -> bool:
        """Whether it acts as the network does, and says the same values."""
        return self.same + self.ties == self.observations and self.difference <= TOLERANCE


def observe(policy: ActionValues, data: Any, task: str, count: int) -> Seen:
    """Return observations of a task, half from greedy episodes and half from random ones.

    Args:
        policy: Acts.
        data: Data module of the run, or what a saved run has in its place.
        task: Name of the task.
        count: Number of observations, at least 2.
    """
    env = TaskEnv(task, data.tasks[task], COPIES, data.layout)
    try:
        greedy = _walk(policy, data, env, epsilon=0.0, count=count - count // 2)
        random = _walk(policy, data, env, epsilon=1.0, count=count // 2)
    finally:
        env.close()
    return Seen(*(np.concatenate(pair) for pair in zip(greedy, random, strict=True)))


def _walk(policy: ActionValues, data: Any, env: TaskEnv, *, epsilon: float, count: int) -> Seen:
    index = list(data.tasks).index(env.task)
    own = data.layout.action_mask(data.task_infos[index].num_actions)
    player = Player(policy, index, own, epsilon, TEST_SEED)
    observations, masks = [], []
    observation, allowed = env.reset(TEST_SEED)
    for _ in range(-(-count // COPIES)):
        observations.append(observation.copy())
        masks.append(np.broadcast_to(own if allowed is None else allowed, (COPIES, len(own))))
        row = env.step(player.act(observation, allowed)[0])
        observation, allowed = row.next_observation, row.next_action_mask
    return Seen(np.concatenate(observations)[:count], np.concatenate(masks)[:count])


def compare(policy: ActionValues, exported: Acts, seen: Seen, task: str, index: int) -> Parity:
    """Return how an exported policy compares with the network.

    Args:
        policy: The network.
        exported: The exported policy.
        seen: Observations of one task.
        task: Its name.
        index: Its place among all tasks.
    """
    same, ties, difference, largest = 0, 0, 0.0, 0.0
    number = np.array([index])
    # The first alone: one at a time is how policies are served.
    edges = range(1, len(seen.observation), AT_A_TIME)
    for rows in np.split(np.arange(len(seen.observation)), edges):
        observation, allowed = seen.observation[None, rows], seen.allowed[None, rows]
        action, values = exported(observation, number, allowed)
        raw = policy.action_values(torch.from_numpy(observation), torch.from_numpy(number))
        wanted = np.where(allowed, raw.cpu().numpy(), -np.inf)
        # Where a state allows nothing, any action will do.
        is_same = (action == wanted.argmax(-1)) | ~allowed.any(-1)
        scale = np.abs(raw.cpu().numpy()[allowed]).max(initial=0.0)
        chosen = np.take_along_axis(wanted, action[..., None], -1)[..., 0]
        is_close = chosen[~is_same] >= wanted.max(-1)[~is_same] - ROUNDING * scale
        same, ties = same + int(is_same.sum()), ties + int(is_close.sum())
        gap = np.abs(values[allowed] - wanted[allowed]).max(initial=0.0)
        # Of NumPy's, because Python's forgets what is no number.
        difference = float(np.maximum(difference, gap))
        largest = max(largest, float(scale))
    return Parity(task, len(seen.observation), same, ties, difference / max(largest, 1e-30))
