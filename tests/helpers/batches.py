"""Minibatches of random transitions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lit_mtdqn.types import TaskInfo, Transition


def random_batch(
    infos: Sequence[TaskInfo], rows: int = 4, seed: int = 0, groups: Sequence[int] = ()
) -> Transition:
    """Return [S, B] transitions of tasks with vector observations.

    Args:
        infos: All tasks.
        rows: B.
        seed: Seed of all draws.
        groups: Task of each group; one group per task if empty.
    """
    generator = torch.Generator().manual_seed(seed)
    task = torch.tensor(list(groups) or list(range(len(infos))))
    shape = (len(task), rows)
    counts = torch.tensor([infos[index].num_actions for index in task.tolist()])
    uniform = torch.rand(shape, generator=generator)
    return Transition(
        observation=torch.randn(*shape, *infos[0].observation_shape, generator=generator),
        action=(uniform * counts[:, None]).long(),
        reward=torch.randn(shape, generator=generator),
        discount=torch.where(torch.rand(shape, generator=generator) < 0.3, 0.0, 0.9),
        next_observation=torch.randn(*shape, *infos[0].observation_shape, generator=generator),
        weight=torch.rand(shape, generator=generator) + 0.5,
        replay_index=torch.zeros(shape, dtype=torch.int64),
        task=task,
        extra={},
    )
