"""Layers with learned noise, and how noise comes and goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mtdqn.functional.masking import padded_action_mask
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.types import require


class DrawsNoise(nn.Module):
    """Base of modules with random numbers in their forward pass.

    The numbers are drawn by `resample_noise` and by nothing else, so that a forward pass can be
    repeated. They hold until the next draw or until evaluation mode is set, from which on the
    module is deterministic; a module that has not drawn yet is, too. A draw in evaluation mode
    holds as well: a target network, which is always in it, has noise of its own.

    Attributes:
        explores: Whether acting with fresh noise explores.
    """

    explores = False
    _is_noisy = False

    def resample_noise(self, generator: torch.Generator | None = None) -> None:
        """Draw new noise and use it from now on."""
        self._draw(generator)
        self._is_noisy = True

    def drop_noise(self) -> None:
        """Use no noise until the next draw."""
        self._is_noisy = False

    def train(self, mode: bool = True) -> Self:
        """Set the mode; evaluation mode drops the noise."""
        if not mode:
            self.drop_noise()
        return super().train(mode)

    def _draw(self, generator: torch.Generator | None) -> None:
        raise NotImplementedError


class _FactorisedNoise(DrawsNoise):
    """Noise of weights as a product of noise of inputs and noise of outputs, for each row."""

    explores = True
    # Decay would end exploration.
    undecayed: tuple[str, ...] = ("sigma_weight", "sigma_bias")
    noise: Tensor

    def _init_noise(self, rows: int, in_features: int, out_features: int) -> None:
        self._inputs = in_features
        noise = torch.zeros(rows, in_features + out_features)
        self.register_buffer("noise", noise, persistent=False)

    def _draw(self, generator: torch.Generator | None) -> None:
        drawn = self.noise.normal_(generator=generator)
        drawn.copy_(drawn.sign() * drawn.abs().sqrt())

    def _factors(self) -> tuple[Tensor, Tensor]:
        """Return the noise of the inputs [rows, in, 1] and of the outputs [rows, 1, out]."""
        inputs, outputs = self.noise[:, : self._inputs], self.noise[:, self._inputs :]
        return inputs.unsqueeze(2), outputs.unsqueeze(1)


class NoisyLinear(_FactorisedNoise, nn.Linear):
    """A linear layer whose weights and biases carry noise of a learned scale.

    Without noise it is an ordinary linear layer of the mean weights.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        noisy_sigma: Initial scale of the noise, above 0, in units of the output. Larger explores
            more, until the scale is learned to be smaller.

    References:
        Fortunato et al. 2018, "Noisy Networks for Exploration", equations 10 and 11,
        https://arxiv.org/abs/1706.10295.
    """

    def __init__(self, in_features: int, out_features: int, noisy_sigma: float = 0.5) -> None:
        super().__init__(in_features, out_features)
        sigma = _initial_sigma(noisy_sigma, in_features)
        self.sigma_weight = nn.Parameter(torch.full_like(self.weight, sigma))
        self.sigma_bias = nn.Parameter(torch.full_like(self.bias, sigma))
        self._init_noise(1, in_features, out_features)

    def forward(self, features: Tensor) -> Tensor:
        """Return [..., out] for features [..., in]."""
        if not self._is_noisy:
            return super().forward(features)
        inputs, outputs = self._factors()
        weight = torch.addcmul(self.weight, self.sigma_weight, (inputs * outputs)[0].T)
        bias = torch.addcmul(self.bias, self.sigma_bias, outputs.flatten())
        return F.linear(features, weight, bias)


class NoisyTaskLinear(_FactorisedNoise, TaskLinear):
    """A linear layer per head whose weights and biases carry noise of a learned scale.

    Each head has noise of its own. Rows are saved by the heads' names, as those of `TaskLinear`.

    Args:
        heads: Name of each task's head, identifiers; tasks of one name share a row.
        in_features: Size of the input.
        out_features: Size of each task's output; narrower ones are padded to the widest.
        init_scale: Factor on PyTorch's usual initial mean weights.
        noisy_sigma: Initial scale of the noise, above 0, in units of the output. Larger explores
            more, until the scale is learned to be smaller.

    References:
        Fortunato et al. 2018, "Noisy Networks for Exploration", equations 10 and 11,
        https://arxiv.org/abs/1706.10295.
    """

    def __init__(
        self,
        heads: Sequence[str],
        in_features: int,
        out_features: Sequence[int],
        init_scale: float = 1.0,
        noisy_sigma: float = 0.5,
    ) -> None:
        super().__init__(heads, in_features, out_features, init_scale)
        sigma = _initial_sigma(noisy_sigma, in_features)
        used = padded_action_mask(self.widths).unsqueeze(1)
        self.sigma_weight = nn.Parameter(sigma * used.expand_as(self.weight))
        self.sigma_bias = nn.Parameter(sigma * used.expand_as(self.bias))
        self._init_noise(len(self.heads), in_features, max(self.widths))

    def rows(self, task: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights [S, in, out] and biases [S, 1, out] of each group's head."""
        if not self._is_noisy:
            return super().rows(task)
        inputs, outputs = self._factors()
        weight = torch.addcmul(self.weight, self.sigma_weight, inputs * outputs)
        bias = torch.addcmul(self.bias, self.sigma_bias, outputs)
        return self._of_tasks(weight, bias, task)


def task_linear(
    heads: Sequence[str],
    in_features: int,
    out_features: Sequence[int],
    init_scale: float = 1.0,
    noisy_sigma: float | None = None,
) -> TaskLinear:
    """Return a linear layer per head, with noise unless `noisy_sigma` is None."""
    if noisy_sigma is None:
        return TaskLinear(heads, in_features, out_features, init_scale)
    return NoisyTaskLinear(heads, in_features, out_features, init_scale, noisy_sigma)


def _initial_sigma(noisy_sigma: float, in_features: int) -> float:
    require(noisy_sigma > 0.0, "noisy_sigma", "be above 0 or null", noisy_sigma)
    return noisy_sigma / math.sqrt(in_features)
