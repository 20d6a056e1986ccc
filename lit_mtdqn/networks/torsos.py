"""From observations to features."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.small_convolution import SmallConvolution
from lit_mtdqn.types import TaskInfo, TaskInfos, as_task_infos, require


class Torso(nn.Module, ABC):
    """Base of all torsos.

    Attributes:
        num_features: Size of the features.
    """

    num_features: int

    @abstractmethod
    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the layers, flat, the features [..., num_features] last.

        Args:
            observation: [..., *O], float32 vectors or uint8 images.
        """


class LayeredTorso(Torso):
    """Base of torsos that say what their layers are, so that a sharing can act between them.

    Attributes:
        layer_sizes: Units or channels of each layer's output, its second axis.
    """

    layer_sizes: tuple[int, ...]

    @abstractmethod
    def chain(self) -> list[list[nn.Module]]:
        """Return the modules of each layer, all of [N, ...], which make `forward` one by one."""


class Pixels(nn.Module):
    """Turns integers into numbers up to 1.

    Args:
        high: The largest integer.
    """

    def __init__(self, high: float) -> None:
        super().__init__()
        self.scale = 1.0 / high

    def forward(self, image: Tensor) -> Tensor:
        """Return float32."""
        image = image.to(torch.float32)
        return image if self.scale == 1.0 else image * self.scale


def _observation(tasks: TaskInfos, kind: str, torso: str) -> TaskInfo:
    info = as_task_infos(tasks)[0]
    if info.observation_kind != kind:
        raise ValueError(
            f"`torso` must take {info.observation_kind} observations of shape "
            f"{info.observation_shape}, as "
            f"{'MLPTorso' if info.observation_kind == 'vector' else 'ConvTorso'} does. "
            f"Got {torso}, which takes {kind} ones."
        )
    return info


def _widened(widths: Sequence[int], width_multiplier: float) -> list[int]:
    require(width_multiplier > 0.0, "width_multiplier", "be above 0", width_multiplier)
    return [max(1, round(width * width_multiplier)) for width in widths]


class MLPTorso(LayeredTorso):
    """Fully connected layers for vector observations.

    Args:
        tasks: The tasks; given by the learner.
        hidden: Widths of the layers.
        layer_norm: Whether each layer is normalised before its activation. It bounds features,
            which stabilises training at high replay ratios.
        activation: Makes the activation.
        width_multiplier: Factor on all widths, above 0, for comparisons at equal numbers of
            parameters; `matched_width` finds it.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        hidden: Sequence[int] = (128, 128),
        layer_norm: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        require(len(hidden) >= 1, "hidden", "hold at least one width", list(hidden))
        require(min(hidden) >= 1, "hidden", "hold widths of at least 1", list(hidden))
        (size,) = _observation(tasks, "vector", "MLPTorso").observation_shape
        self.layer_sizes = tuple(_widened(hidden, width_multiplier))
        widths = [size, *self.layer_sizes]
        layers = [
            _layer(nn.Linear(before, after), after, layer_norm, activation)
            for before, after in pairwise(widths)
        ]
        # Flat, because each level of nesting costs microseconds in every forward pass.
        self.layers = nn.ModuleList(module for layer in layers for module in layer)
        self._ends = set(range(len(layers[0]) - 1, len(self.layers), len(layers[0])))
        self.num_features = widths[-1]

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of all layers."""
        outputs = []
        for index, module in enumerate(self.layers):
            observation = module(observation)
            if index in self._ends:
                outputs.append(observation)
        return tuple(outputs)

    def chain(self) -> list[list[nn.Module]]:
        """Return the modules of each layer."""
        modules, each = list(self.layers), len(self.layers) // len(self.layer_sizes)
        return [modules[start : start + each] for start in range(0, len(modules), each)]


class ChannelNorm(nn.LayerNorm):
    """Normalises images over their channels, each place by itself."""

    def forward(self, image: Tensor) -> Tensor:
        """Return images [N, C, H, W]."""
        return super().forward(image.movedim(1, -1)).movedim(-1, 1)


def _layer(
    weighted: nn.Module, width: int, layer_norm: bool, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    kind = ChannelNorm if isinstance(weighted, nn.Conv2d) else nn.LayerNorm
    return nn.Sequential(weighted, *([kind(width)] if layer_norm else []), activation())


class ConvTorso(LayeredTorso):
    """Convolutions and one fully connected layer for image observations.

    Args:
        tasks: The tasks; given by the learner.
        channels: Output channels of the convolutions.
        kernel_sizes: Their kernel sizes.
        strides: Their strides.
        hidden: Width of the fully connected layer.
        layer_norm: Whether layers are normalised before their activation: the fully connected one
            over its units, convolutions over the channels at each place.
        width_multiplier: Factor on channels and width, above 0.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        channels: Sequence[int] = (32, 64, 64),
        kernel_sizes: Sequence[int] = (8, 4, 3),
        strides: Sequence[int] = (4, 2, 1),
        hidden: int = 512,
        layer_norm: bool = False,
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        require(
            len(channels) == len(kernel_sizes) == len(strides) >= 1,
            "channels, kernel_sizes, strides",
            "be of one length, at least 1",
            (list(channels), list(kernel_sizes), list(strides)),
        )
        info = _observation(tasks, "image", type(self).__name__)
        self.pixels = Pixels(info.observation_high)
        self.layer_sizes = tuple(_widened([*channels, hidden], width_multiplier))
        *channels, hidden = self.layer_sizes
        planes = [info.observation_shape[0], *channels]
        first = partial(SmallConvolution, image_shape=info.observation_shape[1:])
        kinds: list[Callable[..., nn.Conv2d]] = [first, *[nn.Conv2d] * (len(channels) - 1)]
        self.convolutions = nn.ModuleList(
            _layer(kind(before, after, kernel, stride), after, layer_norm, nn.ReLU)
            for kind, (before, after), kernel, stride in zip(
                kinds, pairwise(planes), kernel_sizes, strides, strict=True
            )
        )
        size = self._flat_size(info.observation_shape)
        self.dense = _layer(nn.Linear(size, hidden), hidden, layer_norm, nn.ReLU)
        self.num_features = hidden

    @torch.no_grad()
    def _flat_size(self, observation_shape: tuple[int, ...]) -> int:
        image = torch.zeros(1, *observation_shape)
        try:
            for convolution in self.convolutions:
                image = convolution(image)
        except RuntimeError as error:
            raise ValueError(
                "`kernel_sizes` must fit into the image. Got kernels too large for observations of "
                f"shape {observation_shape}; MinAtarTorso suits small images."
            ) from error
        return math.prod(image.shape)

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of all layers, flattened."""
        rows = observation.shape[:-3]
        image = self.pixels(observation.flatten(0, -4))
        outputs = []
        for convolution in self.convolutions:
            image = convolution(image)
            outputs.append(image.reshape(*rows, -1))
        return (*outputs, self.dense(outputs[-1]))

    def chain(self) -> list[list[nn.Module]]:
        """Return the modules of each layer."""
        first, *others = [[*convolution] for convolution in self.convolutions]  # type: ignore[misc]
        return [[self.pixels, *first], *others, [nn.Flatten(), *self.dense]]


class MinAtarTorso(ConvTorso):
    """The network of the MinAtar paper: one 3x3 convolution and one dense layer.

    Args:
        tasks: The tasks; given by the learner.
        channels: Output channels of the convolution.
        hidden: Width of the dense layer.
        layer_norm: As of `ConvTorso`.
        width_multiplier: Factor on channels and width, above 0.

    References:
        Young and Tian 2019, "MinAtar", https://arxiv.org/abs/1903.03176.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        channels: int = 16,
        hidden: int = 128,
        layer_norm: bool = False,
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__(tasks, [channels], [3], [1], hidden, layer_norm, width_multiplier)
