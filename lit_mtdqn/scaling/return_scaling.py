"""Errors divided by the spread of returns."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mtdqn.scaling.base import ReturnScale
from lit_mtdqn.types import TaskInfos, Transition

SMALLEST = 1e-6


class ReturnScaling(ReturnScale):
    """Divides each task's TD error by sigma, where `sigma^2 = V[R] + V[gamma] E[G^2]`.

    The networks go on to predict raw values; only the losses weigh `1 / sigma`. A squared loss has
    the gradient `error / sigma` then. What objectives add to a task's loss weighs with it, whatever
    its own unit. For bounded heads take `ReturnNormaliser`.

    Args:
        tasks: The tasks; given by the learner.

    References:
        Schaul et al. 2021, "Return-based Scaling: Yet Another Normalisation Trick for Deep RL",
        equation 2, https://arxiv.org/abs/2105.05347.
    """

    weighs_losses = True
    weight: Tensor

    def __init__(self, tasks: TaskInfos) -> None:
        super().__init__(tasks)
        self.register_buffer("weight", torch.ones(len(self.tasks)), persistent=False)

    def normalised(self, batch: Transition) -> Transition:
        """Return the minibatch as it is."""
        return batch

    def loss_weight(self, task: Tensor) -> Tensor:
        """Return the reciprocal of sigma, [S]."""
        return self.weight[task]

    def refresh(self) -> None:
        """Compute sigma."""
        sums = self.sums()
        steps, returns = (torch.as_tensor(n).clamp(min=1.0) for n in (sums.steps, sums.returns))
        reward_variance = sums.reward_square / steps - (sums.reward / steps) ** 2
        discount_variance = sums.discount_square / steps - (sums.discount / steps) ** 2
        square = reward_variance + discount_variance * sums.return_square / returns
        known = torch.as_tensor(sums.returns) > 0.0
        sigma = square.clamp(min=SMALLEST**2).sqrt()
        self.weight.copy_(torch.where(known, 1.0 / sigma, 1.0))

    def metrics(self) -> dict[str, Tensor]:
        """Return each task's sigma, by metric name."""
        return {f"scale/{name}": 1.0 / self.weight[i] for i, name in enumerate(self.tasks)}
