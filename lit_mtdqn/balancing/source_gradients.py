"""The gradients of other tasks, added to that of the one that counts."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from lit_mtdqn.balancing.base import Backward, Balancer, TaskLosses
from lit_mtdqn.functional.gradients import gradient_cosines
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import Schedule, TaskInfos, as_task_infos, bounds_of, require, value_at

Gate = Literal["sign", "cosine", "none"]


class SourceGradients(Balancer):
    """Adds to the gradient of a target task those of source tasks, as far as they agree with it.

    The shared parameters get `g_t + beta * sum over sources of gate(cos(g_t, g_s)) g_s`, all
    gradients being taken at the present parameters. What one task has for itself, such as a head of
    its own, learns as under equal weights, which take the mean over tasks where this takes a sum;
    no gate is before it. Gradients are means over ranks before they are compared.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        target_task: Name of the task that counts; None takes the first that learns. All others
            that learn are sources.
        beta: Factor on the sources' gradients, at least 0, or a schedule of it over updates. Larger
            learns more from sources; ending at 0 leaves the target alone in the end.
        gate: What of a source's gradient is let through: `sign`, all of it where it does not
            oppose the target's; `cosine`, the share that is the cosine of their angle, none where
            they oppose each other; `none`, all of it, always.

    Raises:
        ValueError: If a value is out of range, there is no such task or no source; at an update
            that lacks a learning task.

    References:
        Du et al. 2018, "Adapting Auxiliary Losses Using Gradient Similarity", algorithms 1
        (`cosine`) and 2 (`sign`), https://arxiv.org/abs/1812.02224.
    """

    by_task = True

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        target_task: str | None = None,
        beta: float | Schedule = 1.0,
        gate: Gate = "sign",
    ) -> None:
        super().__init__(tasks, network)
        names = [info.name for info in as_task_infos(tasks) if info.learns]
        name = names[0] if target_task is None else target_task
        must = f"be a task that learns, among {names}"
        require(name in names, "SourceGradients.target_task", must, name)
        must = "leave another task that learns as a source"
        require(len(names) > 1, "SourceGradients.target_task", must, name)
        require(bounds_of(beta)[0] >= 0.0, "SourceGradients.beta", "be at least 0", beta)
        gates = get_args(Gate)
        require(gate in gates, "SourceGradients.gate", f"be one of {', '.join(gates)}", gate)
        self.target_place = names.index(name)
        self.beta, self.gate = beta, gate
        self._shares: Tensor | None = None

    def accumulate(self, losses: TaskLosses, learner: Backward) -> None:
        """Fill the gradients of all parameters."""
        self.require_every_task(losses)
        gradients = learner.backpropagate_by_task(losses)
        beta = value_at(self.beta, learner.updates)
        shares = beta * self._let_through(gradients.by_task)
        shares[self.target_place] = 1.0
        learner.fill_shared(gradients.complete(shares @ gradients.by_task))
        self._shares = shares

    def task_weights(self) -> Tensor | None:
        """Return the factors on the tasks' gradients in the last update, [T]; 1 for the target."""
        return self._shares

    def _let_through(self, gradients: Tensor) -> Tensor:
        """Return the share of each task's gradient [T, P] that the gate lets through, [T]."""
        if self.gate == "none":
            return gradients.new_ones(len(gradients))
        cosine = gradient_cosines(gradients)[self.target_place]
        return cosine.clamp(min=0.0) if self.gate == "cosine" else (cosine >= 0.0).to(gradients)
