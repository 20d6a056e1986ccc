"""The head of quantiles of the return at any fractions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.distributional import quantile_midpoints
from lit_mtdqn.networks.heads.quantile import QuantileRegressionHead
from lit_mtdqn.networks.noise import DrawsNoise
from lit_mtdqn.types import TaskInfos, require

# Rotations by multiples of it spread most evenly over [0, 1), however many there are.
GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


class ImplicitQuantileHead(DrawsNoise, QuantileRegressionHead):
    """The distribution of the return, as a function from fractions to quantiles.

    Fractions are embedded by cosines and a layer that all heads share, and scale the features
    before the last layers. While learning they are random: drawn once per update, and rotated by
    another part of the circle in each row of a batch. Acting and evaluation use fixed middles of
    equal parts. Action values are means of quantiles; the error by which a replay ranks transitions
    is that of the mean. Double selection uses the online network's own random fractions.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        num_fractions: Fractions per row of the online network, N, at least 1. The cost of an update
            grows with it.
        num_target_fractions: Fractions per row of the target network, N'. More make steadier
            targets.
        num_acting_fractions: Fractions for acting and evaluation, K.
        num_cosines: Size of the embedding's input, at least 1. More resolve finer.
        huber_delta: Error at which the loss turns linear, in units of the return, above 0.
        dueling: Whether quantiles are those of a state plus centred ones of actions.
        hidden: Width of a layer before the last one, shared by all heads, one per stream if
            dueling; 0 has none.
        init_scale: Factor on the usual initial weights of the last layers. Near 0 all quantiles
            start near 0.
        noisy_sigma: Initial scale of noise on the weights of all layers but the embedding's, in
            units of the return, by which acting explores (Fortunato et al. 2018); 0.5 is usual.
            Null has no noise.

    Raises:
        ValueError: If a number is too small.

    References:
        Dabney et al. 2018, "Implicit Quantile Networks for Distributional Reinforcement Learning",
        equations 3 and 4, https://arxiv.org/abs/1806.06923. There, 64, 64, 32 fractions; 32 each in
        Obando-Ceron and Castro 2021, "Revisiting Rainbow", https://arxiv.org/abs/2011.14826.
    """

    drawn: Tensor
    midpoints: Tensor
    frequencies: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        num_fractions: int = 32,
        num_target_fractions: int = 32,
        num_acting_fractions: int = 32,
        num_cosines: int = 64,
        huber_delta: float = 1.0,
        dueling: bool = False,
        hidden: int = 0,
        init_scale: float = 0.01,
        noisy_sigma: float | None = None,
    ) -> None:
        for name, number in (
            ("num_fractions", num_fractions),
            ("num_target_fractions", num_target_fractions),
            ("num_acting_fractions", num_acting_fractions),
            ("num_cosines", num_cosines),
        ):
            require(number >= 1, name, "be at least 1", number)
        require(huber_delta > 0.0, "huber_delta", "be above 0", huber_delta)
        super().__init__(
            tasks,
            in_features,
            None,
            dueling=dueling,
            hidden=hidden,
            init_scale=init_scale,
            noisy_sigma=noisy_sigma,
        )
        self.num_fractions, self.num_target_fractions = num_fractions, num_target_fractions
        self.huber_delta = huber_delta
        self.embedding = nn.Sequential(nn.Linear(num_cosines, in_features), nn.ReLU())
        drawn = torch.zeros(1, max(num_fractions, num_target_fractions))
        midpoints = quantile_midpoints(num_acting_fractions).unsqueeze(0)
        self.register_buffer("drawn", drawn, persistent=False)
        self.register_buffer("midpoints", midpoints, persistent=False)
        frequencies = math.pi * torch.arange(num_cosines, dtype=torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def _draw(self, generator: torch.Generator | None) -> None:
        self.drawn.uniform_(generator=generator)

    def fractions(self, rows: int) -> Tensor:
        """Return what the last draw gives each row, [B, Z], or the fixed middles, [1, Z].

        The online network learns in training mode, the target network is in evaluation mode.
        """
        if not self._is_noisy:
            return self.midpoints
        count = self.num_fractions if self.training else self.num_target_fractions
        turns = torch.arange(rows, device=self.drawn.device).unsqueeze(1) * GOLDEN_RATIO
        return (self.drawn[:, :count] + turns).frac()

    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return the quantiles [S, B, A, Z] at the fractions of each row."""
        cosines = (self.fractions(features.shape[1]).unsqueeze(-1) * self.frequencies).cos()
        # Groups share the fractions of their rows, and so one embedding.
        return self.by_action(features, task, self.embedding(cosines))
