"""Convolutions of images that are only a few places wide."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Beyond so many places, or bytes of columns, which then leave a processor's cache, oneDNN convolves
# no slower.
MOST_PLACES, MOST_BYTES = 64, 2 * 2**20


class SmallConvolution(nn.Conv2d):
    """A first convolution that learns by one batched product of matrices where images are small.

    On a CPU, oneDNN needs some 1.3 times as long for the forward and backward pass of 32 images
    like those of MinAtar, and as long for 128 (`benchmarks/speed_ups.py`). Results are those of
    `torch.nn.Conv2d` but for rounding, under the same names of weights. Whatever is computed
    without gradients, or with one of the images, or exported, or on another device, is left to
    PyTorch.

    Args:
        in_channels: Of the images.
        out_channels: Of the output.
        kernel_size: Height and width of the square kernel.
        stride: Of the kernel.
        image_shape: Height and width of the images.
    """

    columns: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        image_shape: Sequence[int],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride)
        self.image_shape = tuple(image_shape)
        self.output_shape = tuple((side - kernel_size) // stride + 1 for side in image_shape)
        self._places = math.prod(self.output_shape)
        numbers = torch.empty(0, dtype=torch.long)
        if min(self.output_shape) > 0 and self._places <= MOST_PLACES:
            patches = torch.arange(in_channels * math.prod(image_shape))
            patches = patches.view(in_channels, *image_shape)
            for axis in (1, 2):
                patches = patches.unfold(axis, kernel_size, stride)
            # What each weight multiplies at each place; of large images nothing.
            numbers = patches.permute(0, 3, 4, 1, 2).flatten()
        self.register_buffer("columns", numbers, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return images [N, C, H, W]."""
        if not self._is_small(input):
            return super().forward(input)
        assert self.bias is not None
        images = input.shape[0]
        columns = input.flatten(1).index_select(1, self.columns)
        weight = self.weight.flatten(1).expand(images, -1, -1)
        output = torch.baddbmm(
            self.bias.unsqueeze(-1), weight, columns.view(images, weight.shape[-1], self._places)
        )
        return output.view(images, self.out_channels, *self.output_shape)

    def _is_small(self, images: Tensor) -> bool:
        # An export would hold for as many images alone.
        if torch.compiler.is_exporting() or not torch.is_grad_enabled() or images.requires_grad:
            return False
        if images.device.type != "cpu" or not self.columns.numel():
            return False
        if tuple(images.shape[1:]) != (self.in_channels, *self.image_shape):
            return False
        return images.shape[0] * self.columns.numel() * images.element_size() <= MOST_BYTES
