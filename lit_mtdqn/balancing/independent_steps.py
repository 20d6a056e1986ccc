"""One optimiser step per task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mtdqn.balancing.base import Backward, Balancer, TaskLosses
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import TaskInfos, Transition, require


class IndependentSteps(Balancer):
    """Lets each task make an optimiser step of its own, with optimiser state of its own.

    The shared parameters move by the mean of the tasks' steps, so that the learning rate means what
    it means under equal weights; all steps are taken from the same point. With Adam a task whose
    gradients are small then steps as far as one whose gradients are large: neither shapes the
    other's moments. The optimiser must treat every number by itself, as SGD and the Adam family do;
    it decays no shared weights. Memory of the optimiser is that of T networks.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        max_grad_norm: Norm to which each task's gradient of the shared parameters is clipped; None
            does not clip.

    Raises:
        ValueError: If `max_grad_norm` is not above 0.
    """

    by_task = True

    def __init__(
        self, tasks: TaskInfos, network: QNetwork, max_grad_norm: float | None = 10.0
    ) -> None:
        super().__init__(tasks, network)
        valid = max_grad_norm is None or max_grad_norm > 0.0
        require(valid, "IndependentSteps.max_grad_norm", "be above 0 or null", max_grad_norm)
        self.max_grad_norm = max_grad_norm
        size = sum(p.numel() for p in network.shared_parameters() if p.requires_grad)
        # The optimiser makes the steps here, where its state has a row per task.
        self.steps = nn.Parameter(torch.zeros(len(self.learning), size))

    def accumulate(self, losses: TaskLosses, learner: Backward) -> None:
        """State each task's gradient; the shared parameters themselves get none."""
        self.require_every_task(losses)
        gradients = learner.backpropagate_by_task(losses)
        self.steps.grad = self._clipped(gradients.complete(gradients.by_task))

    def _clipped(self, rows: Tensor) -> Tensor:
        if self.max_grad_norm is None:
            return rows
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        factor: Tensor = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
        return rows * factor

    @torch.no_grad()
    def on_update_end(self, batch: Transition, learner: Backward) -> None:
        """Move the shared parameters by the steps that the optimiser has made."""
        learner.move_shared(self.steps.mean(0))
        self.steps.zero_()
