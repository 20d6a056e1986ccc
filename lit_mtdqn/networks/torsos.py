"""From observations to features."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from lit_mtdqn.types import TaskInfo, TaskInfos, as_task_infos, require


class Torso(nn.Module, ABC):
    """Base of all torsos.

    Attributes:
        num_features: Size of the features.
    """

    num_features: int

    @abstractmethod
    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the layers, the features [N, num_features] last.

        Args:
            observation: [N, *O], float32 vectors or uint8 images.
        """


class LayeredTorso(Torso):
    """Base of torsos that are a chain of layers, so that a sharing may act between them.

    A subclass makes its layers and calls this constructor; it has no `forward` to write.

    Args:
        layers: The modules of each layer, in order. All are applied to [N, ...], one after another.
        layer_sizes: Units or channels of each layer's output, its second axis.
        num_features: Size of the features.

    Attributes:
        layers: The modules of all layers, flat, because each level of nesting costs microseconds in
            every forward pass.
        ends: Place of the last module of each layer.
        layer_sizes: Units or channels of each layer.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[nn.Module]],
        layer_sizes: Sequence[int],
        num_features: int,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(module for layer in layers for module in layer)
        self.ends = tuple(end - 1 for end in accumulate(len(layer) for layer in layers))
        self.layer_sizes = tuple(layer_sizes)
        self.num_features = num_features

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of all layers, the features [N, num_features] last."""
        return self.run(observation)

    def run(
        self, observation: Tensor, between: Callable[[int, Tensor], Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Return the outputs of all layers, [N, size, ...] each.

        Args:
            observation: [N, *O], float32 vectors or uint8 images.
            between: Changes the output of a layer, given its number and its output.
        """
        outputs: list[Tensor] = []
        for index, module in enumerate(self.layers):
            observation = module(observation)
            if index in self.ends:
                if between is not None:
                    observation = between(len(outputs), observation)
                outputs.append(observation)
        return tuple(outputs)

    def keep_first(self, depth: int) -> None:
        """Drop all but the first layers; the features are then the last kept layer's output."""
        self.layers = self.layers[: self.ends[depth - 1] + 1]
        self.ends, self.layer_sizes = self.ends[:depth], self.layer_sizes[:depth]


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
            f"{info.observation_shape}; {torso} takes {kind} ones. "
            f"Use {'MLPTorso' if info.observation_kind == 'vector' else 'ConvTorso'}, "
            "or wrap the environment."
        )
    return info


def _widened(widths: Sequence[int], width_multiplier: float) -> list[int]:
    require(width_multiplier > 0.0, "width_multiplier", "be above 0", width_multiplier)
    return [max(1, round(width * width_multiplier)) if width else width for width in widths]


def _dense(size: int, width: int, layer_norm: bool) -> list[nn.Module]:
    return [nn.Linear(size, width), *([nn.LayerNorm(width)] if layer_norm else [])]


class MLPTorso(LayeredTorso):
    """Fully connected layers for vector observations.

    Args:
        tasks: The tasks; given by the learner.
        hidden: Widths of the layers.
        layer_norm: Whether each layer is normalised before its activation. It bounds features,
            which stabilises training at high replay ratios.
        activation: Makes the activation.
        width_multiplier: Factor on all widths, above 0.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        hidden: Sequence[int] = (128, 128),
        layer_norm: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
        width_multiplier: float = 1.0,
    ) -> None:
        require(len(hidden) >= 1, "hidden", "hold at least one width", list(hidden))
        require(min(hidden) >= 1, "hidden", "hold widths of at least 1", list(hidden))
        (size,) = _observation(tasks, "vector", "MLPTorso").observation_shape
        hidden = _widened(hidden, width_multiplier)
        layers = [
            [*_dense(before, after, layer_norm), activation()]
            for before, after in pairwise([size, *hidden])
        ]
        super().__init__(layers, hidden, hidden[-1])


class ConvTorso(LayeredTorso):
    """Convolutions and one fully connected layer for image observations.

    Args:
        tasks: The tasks; given by the learner.
        channels: Output channels of the convolutions.
        kernel_sizes: Their kernel sizes.
        strides: Their strides.
        hidden: Width of the fully connected layer.
        layer_norm: Whether the fully connected layer is normalised before its activation.
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
        require(
            len(channels) == len(kernel_sizes) == len(strides) >= 1,
            "channels, kernel_sizes, strides",
            "be of one length, at least 1",
            (list(channels), list(kernel_sizes), list(strides)),
        )
        info = _observation(tasks, "image", type(self).__name__)
        *channels, hidden = _widened([*channels, hidden], width_multiplier)
        planes = pairwise([info.observation_shape[0], *channels])
        layers: list[list[nn.Module]] = [
            [nn.Conv2d(before, after, kernel, stride), nn.ReLU()]
            for (before, after), kernel, stride in zip(planes, kernel_sizes, strides, strict=True)
        ]
        size = _flat_size(layers, info.observation_shape)
        layers[0].insert(0, Pixels(info.observation_high))
        layers.append([nn.Flatten(), *_dense(size, hidden, layer_norm), nn.ReLU()])
        super().__init__(layers, [*channels, hidden], hidden)

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of all layers, flattened."""
        return tuple(output.flatten(1) for output in self.run(observation))


@torch.no_grad()
def _flat_size(layers: list[list[nn.Module]], observation_shape: tuple[int, ...]) -> int:
    image = torch.zeros(1, *observation_shape)
    try:
        for convolution, _ in layers:
            image = convolution(image)
    except RuntimeError as error:
        raise ValueError(
            "`kernel_sizes` must fit into the image. Got kernels too large for observations of "
            f"shape {observation_shape}; MinAtarTorso suits small images."
        ) from error
    return math.prod(image.shape)


class MinAtarTorso(ConvTorso):
    """The network of the MinAtar paper: one 3x3 convolution and one dense layer.

    Args:
        tasks: The tasks; given by the learner.
        channels: Output channels of the convolution.
        hidden: Width of the dense layer.
        layer_norm: Whether the dense layer is normalised before its activation.
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
