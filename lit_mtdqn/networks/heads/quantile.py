"""Heads that regress quantiles of the return."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mtdqn.functional.distributional import quantile_huber_loss, quantile_midpoints
from lit_mtdqn.functional.td import follow
from lit_mtdqn.networks.heads.base import LayeredHead
from lit_mtdqn.types import Prediction, TaskInfos, require


class QuantileRegressionHead(LayeredHead):
    """Base of heads whose output are quantiles of the return, at the prediction's fractions."""

    huber_delta: float

    def q_values(self, prediction: Prediction) -> Tensor:
        """Return the means of quantiles [S, B, A]."""
        return prediction.output.float().mean(-1)

    def target(
        self, reward: Tensor, discount: Tensor, next_prediction: Prediction, next_action: Tensor
    ) -> Tensor:
        """Return the next state's quantiles, discounted and moved by the reward, [S, B, Z].

        A policy averages each quantile over its actions, as Munchausen IQN does, instead of mixing
        their distributions.
        """
        quantiles = follow(next_prediction.output.float(), next_action)
        return torch.addcmul(reward.unsqueeze(-1), discount.unsqueeze(-1), quantiles)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the quantile Huber loss [S, B] and the error of the mean [S, B]."""
        assert prediction.taus is not None
        quantiles = follow(prediction.output, action).float()
        delta = self.huber_delta
        loss = quantile_huber_loss(quantiles, prediction.taus, target, huber_delta=delta)
        return loss, target.mean(-1) - quantiles.detach().mean(-1)


class QuantileHead(QuantileRegressionHead):
    """The distribution of the return, as quantiles at the middles of equal parts of [0, 1].

    No support has to be known. Action values are means of quantiles; the error by which a replay
    ranks transitions is that of the mean.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        num_quantiles: Number of quantiles, at least 1. The loss compares all pairs, so that its
            cost grows with the square; its size grows with the number.
        huber_delta: Error at which the loss turns linear, in units of the return, above 0. Smaller
            is nearer to quantiles, larger to expectiles.
        dueling: Whether quantiles are those of a state plus centred ones of actions.
        hidden: Width of a layer before the last one, shared by all heads, one per stream if
            dueling; 0 has none.
        init_scale: Factor on the usual initial weights of the last layers. Near 0 all quantiles
            start near 0.
        noisy_sigma: Initial scale of noise on the weights of all layers, in units of the return, by
            which acting explores (Fortunato et al. 2018); 0.5 is usual. Null has no noise.

    Raises:
        ValueError: If `num_quantiles` or `huber_delta` is too small.

    References:
        Dabney et al. 2018, "Distributional Reinforcement Learning with Quantile Regression",
        https://arxiv.org/abs/1710.10044. There, 200 quantiles.
    """

    meant_by = ("num_quantiles",)
    midpoints: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        num_quantiles: int = 51,
        huber_delta: float = 1.0,
        dueling: bool = False,
        hidden: int = 0,
        init_scale: float = 0.01,
        noisy_sigma: float | None = None,
    ) -> None:
        require(num_quantiles >= 1, "num_quantiles", "be at least 1", num_quantiles)
        require(huber_delta > 0.0, "huber_delta", "be above 0", huber_delta)
        super().__init__(
            tasks,
            in_features,
            num_quantiles,
            dueling=dueling,
            hidden=hidden,
            init_scale=init_scale,
            noisy_sigma=noisy_sigma,
        )
        self.huber_delta = huber_delta
        midpoints = quantile_midpoints(num_quantiles).unsqueeze(0)
        self.register_buffer("midpoints", midpoints, persistent=False)

    def fractions(self, rows: int) -> Tensor:
        """Return the middles, [1, Z]."""
        return self.midpoints
