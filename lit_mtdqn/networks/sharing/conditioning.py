"""What a task changes in a trunk that all tasks share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.task_linear import TaskLinear


class FiLM(nn.Module):
    """Scales and shifts each unit, or channel, of each layer as a task's embedding says.

    It starts as the identity. It acts after each layer's activation; the paper puts it before.

    Args:
        embedding_dim: Size of the embedding.
        layer_sizes: Units or channels of each layer.

    References:
        Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer", equation 2,
        https://arxiv.org/abs/1709.07871.
    """

    def __init__(self, embedding_dim: int, layer_sizes: Sequence[int]) -> None:
        super().__init__()
        self.layer_sizes = list(layer_sizes)
        self.generator = nn.Linear(embedding_dim, 2 * sum(layer_sizes))
        nn.init.zeros_(self.generator.weight)
        nn.init.zeros_(self.generator.bias)

    def forward(self, embedding: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return scale and shift [S, 1, size, 1] of each layer, for embeddings [S, D]."""
        scale, shift = self.generator(embedding)[:, None, :, None].chunk(2, dim=2)
        scales = (1.0 + scale).split(self.layer_sizes, dim=2)
        return list(zip(scales, shift.split(self.layer_sizes, dim=2), strict=True))


def modulate(output: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return `scale * output + shift` by unit or channel.

    Args:
        output: [S, B, size, ...].
        scale: [S, 1, size, 1].
        shift: [S, 1, size, 1].
    """
    return (output.reshape(*output.shape[:3], -1) * scale + shift).view_as(output)


class AttentionMasks(nn.Module):
    """Lets each task choose, by observation, how much of each shared unit or channel it sees.

    Beside the trunk, each task has a path of its own: at every layer a mask in (0, 2), made of the
    shared output there and of what the task saw at the layer before, multiplies the shared output.
    The last product is the features. The trunk itself sees no mask. Masks start at 1.

    Differences from the paper: two small dense layers make a mask, where the paper has 1x1
    convolutions; outputs of convolutions are averaged over the image first, so that a mask has one
    number per channel; masks reach to 2, so that a start at 1 is possible; no batch normalisation.

    Args:
        tasks: Names of the tasks.
        layer_sizes: Units or channels of each layer.
        hidden: Width between the two dense layers. Larger discerns more.

    References:
        Liu et al. 2019, "End-to-End Multi-Task Learning with Attention", equations 1 and 2,
        https://arxiv.org/abs/1803.10704.
    """

    def __init__(self, tasks: Sequence[str], layer_sizes: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.layer_sizes = tuple(layer_sizes)
        before = [0, *layer_sizes[:-1]]
        self.squeeze = nn.ModuleList(
            TaskLinear(tasks, size + seen, [hidden] * len(tasks))
            for size, seen in zip(layer_sizes, before, strict=True)
        )
        self.masks = nn.ModuleList(
            TaskLinear(tasks, hidden, [size] * len(tasks), init_scale=0.0) for size in layer_sizes
        )

    def forward(self, layers: Sequence[Tensor], task: Tensor) -> tuple[Tensor, ...]:
        """Return what the tasks [S] see of the shared outputs [S, B, width], of the same shapes."""
        seen: list[Tensor] = []
        pooled: list[Tensor] = []
        for squeeze, masks, size, layer in zip(
            self.squeeze, self.masks, self.layer_sizes, layers, strict=True
        ):
            shared = layer.reshape(*layer.shape[:2], size, -1)
            inputs = torch.cat([shared.mean(-1), *pooled[-1:]], -1)
            mask = 2.0 * masks(squeeze(inputs, task).relu(), task).sigmoid()
            seen.append((shared * mask.unsqueeze(-1)).flatten(2))
            pooled.append(shared.mean(-1) * mask)
        return tuple(seen)
