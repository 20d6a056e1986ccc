"""Task weights that keep gradients of comparable length."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mtdqn.balancing.base import Backward, Balancer, TaskLosses
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import TaskInfos, require


class GradNorm(Balancer):
    """Learns task weights that bring the tasks' gradients to a common length.

    A task whose loss has fallen less than the others' since the first update is granted a longer
    gradient. Lengths are those of the gradients of all shared parameters, where the paper takes the
    last shared layer's to save time. The weights are positive with mean 1 by a softmax, where the
    paper renormalises after each step.

    Args:
        tasks: The tasks; given by the learner.
        network: The Q-network; given by the learner.
        alpha: Strength of the pull towards tasks that lag behind. 0 makes all gradients equally
            long; larger favours laggards more, the paper takes 1.5 for tasks of unlike difficulty.
        lr: Step size of the weights.
        floor: Added to every loss where it is compared with the first one, above 0: a first
            temporal-difference loss close to 0 would make its task a laggard for ever.

    Raises:
        ValueError: If `alpha` is negative, or `lr` or `floor` not above 0.

    References:
        Chen et al. 2018, "GradNorm: Gradient Normalization for Adaptive Loss Balancing", equations
        1 and 2, https://arxiv.org/abs/1711.02257.
    """

    by_task = True
    first_loss: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        network: QNetwork,
        alpha: float = 1.5,
        lr: float = 0.025,
        floor: float = 1e-4,
    ) -> None:
        super().__init__(tasks, network)
        require(alpha >= 0.0, "GradNorm.alpha", "be at least 0", alpha)
        require(lr > 0.0, "GradNorm.lr", "be above 0", lr)
        require(floor > 0.0, "GradNorm.floor", "be above 0", floor)
        self.alpha, self.lr, self.floor = alpha, lr, floor
        self.log_weight = nn.Parameter(torch.zeros(len(self.learning)))
        # 0 stands for losses that have not been seen.
        self.register_buffer("first_loss", torch.zeros(len(self.learning)))

    def task_weights(self) -> Tensor:
        """Return the weights [T], of mean 1."""
        return torch.softmax(self.log_weight.detach(), 0) * len(self.log_weight)

    def accumulate(self, losses: TaskLosses, learner: Backward) -> None:
        """Take the weighted mean of gradients, and state which way the weights should go."""
        self.require_every_task(losses)
        loss = learner.mean_over_ranks(losses.loss.detach().clone()) + self.floor
        self.first_loss.copy_(torch.where(self.first_loss > 0.0, self.first_loss, loss))
        weight = self.task_weights()
        gradients = learner.backpropagate_by_task(losses, weight)
        learner.fill_shared(gradients.complete(gradients.by_task.mean(0)))
        lengths = torch.linalg.vector_norm(gradients.by_task, dim=1)
        self.log_weight.grad = self._slope(lengths / weight, loss / self.first_loss)

    def _slope(self, lengths: Tensor, progress: Tensor) -> Tensor:
        """Return the gradient of the distance between lengths and what they should be.

        Args:
            lengths: Of the gradients without weights, [T].
            progress: Losses over the first ones, [T].
        """
        with torch.enable_grad():
            leaf = self.log_weight.detach().requires_grad_(True)
            weighted = torch.softmax(leaf, 0) * len(leaf) * lengths
            lag = (progress / progress.mean()).pow(self.alpha)
            wanted = (weighted.mean() * lag).detach()
            (slope,) = torch.autograd.grad((weighted - wanted).abs().sum(), leaf)
        return slope
