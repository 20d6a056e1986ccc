"""MinAtar's network below its last layer, for programs that have none."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Planes(nn.Module):
    """One 3x3 convolution of 16 channels and one dense layer.

    Args:
        shape: Of an observation: height, width, channels.
        hidden: Width of the dense layer.

    References:
        Young and Tian 2019, "MinAtar", https://arxiv.org/abs/1903.03176.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        height, width, channels = shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (height - 2) * (width - 2), hidden),
            nn.ReLU(),
        )

    def forward(self, observation: Tensor) -> Tensor:
        """Return features [..., hidden] of bit planes [..., H, W, C]."""
        rows = observation.shape[:-3]
        planes = observation.reshape(-1, *observation.shape[-3:]).permute(0, 3, 1, 2)
        # In the order that a convolution of such size is fastest in, as `lit_mtdqn` stores it.
        planes = planes.to(torch.float32, memory_format=torch.contiguous_format)
        features: Tensor = self.layers(planes)
        return features.view(*rows, -1)
