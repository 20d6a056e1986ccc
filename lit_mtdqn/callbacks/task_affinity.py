"""Whether a step for one task helps or harms the others."""

from __future__ import annotations

from torch import Tensor

from lit_mtdqn.analysis.relatedness import AFFINITY
from lit_mtdqn.callbacks.inspection import ComparesTasks, TaskComparison, compared_tasks
from lit_mtdqn.types import Transition, require

# How far a task's affinity with itself may be from 1, where a step follows its slope exactly.
TOLERANCE = 0.5


class TaskAffinity(TaskComparison):
    """Logs what a small step for one task does to the losses of all.

    `affinity/<task>/<other>`: the parameters that tasks share are moved along the gradient of the
    first task's loss alone, far enough to lower that loss by `share` to first order; the metric is
    the part of the other's loss that this takes away, over `share`. 1 is as good as a step for the
    other itself would be, 0 is nothing, negative is harm. It knows no scale of rewards. The losses
    are those of the last minibatch of a phase, and nothing is changed. Where gradients' cosines say
    which way steps point, this says what they do, and not the same both ways.

    `affinity/<task>/<task>` is near 1 where the step was as short as its slope holds. Where it is
    off by more than 0.5, as on a plateau of the loss, the others are not logged.

    Each time costs a forward and a backward pass, and a forward pass per task. The run's report
    draws the means over the run, and says which tasks should be trained together. In YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.TaskAffinity
            init_args: {every_n_updates: 1000}

    Args:
        every_n_updates: Least updates between two looks, which come with rows of metrics only.
            Larger costs less.
        share: Part of a task's loss that the step for it would take away to first order, in (0, 1).
            Larger looks further ahead, and less like one update.

    Raises:
        ValueError: If a value is out of range.

    References:
        Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning",
        equation 1, https://arxiv.org/abs/2109.04617. There the step is that of the optimiser, and
        affinities depend on its length and on the scale of the losses.
    """

    def __init__(self, every_n_updates: int = 1000, share: float = 0.01) -> None:
        super().__init__(every_n_updates)
        require(0.0 < share < 1.0, "share", "lie in (0, 1)", share)
        self.share = share

    def metrics(self, learner: ComparesTasks, batch: Transition) -> dict[str, Tensor]:
        """Return the affinities of all pairs, both ways, and of each task with itself."""
        names = compared_tasks(batch, learner)
        affinity = learner.task_affinity(batch, self.share)
        holds = ((affinity.diagonal() - 1.0).abs() <= TOLERANCE).tolist()
        return {
            f"{AFFINITY}/{name}/{other}": affinity[i, j]
            for i, name in enumerate(names)
            for j, other in enumerate(names)
            if holds[i] or i == j
        }
