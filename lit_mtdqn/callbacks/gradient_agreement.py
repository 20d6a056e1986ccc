"""Whether tasks pull the parameters that they share into one direction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from lit_mtdqn.analysis.relatedness import COSINE, LENGTH
from lit_mtdqn.callbacks.inspection import ComparesTasks, TaskComparison, compared_tasks
from lit_mtdqn.functional.gradients import gradient_cosines
from lit_mtdqn.types import Transition


class GradientAgreement(TaskComparison):
    """Logs how the tasks' gradients of shared parameters agree, and how long they are.

    Of the last minibatch of a phase: `gradients/cosine/<task>/<task>`, negative where a step for
    one task raises the other's loss, and `gradients/share/<task>`, the part of a task's length in
    the sum of all lengths, before balancing. Each time costs a forward and a backward pass. The
    run's report draws their means over the run. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.GradientAgreement
            init_args: {every_n_updates: 1000}

    Args:
        every_n_updates: Least updates between two looks, which come with rows of metrics only.
            Larger costs less.

    Raises:
        ValueError: If `every_n_updates` is below 1.

    References:
        Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", section 2,
        https://arxiv.org/abs/2001.06782.
    """

    def metrics(self, learner: ComparesTasks, batch: Transition) -> dict[str, Tensor]:
        """Return cosines and lengths."""
        names = compared_tasks(batch, learner)
        return _agreement(learner.task_gradients(batch).by_task, names)


def _agreement(by_task: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    cosines = gradient_cosines(by_task)
    lengths = torch.linalg.vector_norm(by_task, dim=1)
    shares = lengths / lengths.sum().clamp_min(torch.finfo(lengths.dtype).tiny)
    pairs = combinations(range(len(names)), 2)
    return {
        **{f"{COSINE}/{names[i]}/{names[j]}": cosines[i, j] for i, j in pairs},
        **{f"{LENGTH}/{name}": shares[i] for i, name in enumerate(names)},
    }
