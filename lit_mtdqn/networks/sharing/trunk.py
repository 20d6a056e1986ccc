"""One torso for all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from lit_mtdqn.networks.copies import Copies
from lit_mtdqn.networks.rows import TaskEmbedding, TaskRows, owners
from lit_mtdqn.networks.sharing.base import (
    Shared,
    Sharing,
    TorsoFactory,
    require_layers,
    sizes_of_layers,
)
from lit_mtdqn.networks.sharing.conditioning import AttentionMasks, FiLM, modulate
from lit_mtdqn.networks.torsos import LayeredTorso
from lit_mtdqn.types import TaskInfo, TaskInfos, as_task_infos, require

CONDITIONINGS = ("none", "concat", "film", "mask", "branch")


class SharedTrunk(Sharing):
    """One torso for all tasks, which a task may condition.

    Args:
        tasks: The tasks; given by the learner.
        torso: Makes the torso; given by the network.
        conditioning: What a task changes. `none`: nothing. `concat`: a learned embedding of the
            task is put before vector observations. `film`: an embedding scales and shifts each
            layer. `mask`: each task weighs the outputs of all layers by attention masks of its own.
            `branch`: only the first layers are shared, each task has the rest for itself.
        embedding_dim: Size of the embedding for `concat` and `film`.
        branch_depth: Number of shared layers for `branch`, at least 1 and less than all. More share
            more.
        mask_hidden: Width inside the masks of `mask`.
        one_head: Whether all tasks use one head (strict sharing). What tells them apart is then the
            conditioning alone, and with `none` the observation.

    Raises:
        ValueError: If a value is out of range or does not suit the observations.
        TypeError: If `film`, `mask` or `branch` meets a torso that does not name its layers.

    References:
        Caruana 1997, "Multitask Learning"; Perez et al. 2018, "FiLM",
        https://arxiv.org/abs/1709.07871; Liu et al. 2019, "End-to-End Multi-Task Learning with
        Attention", https://arxiv.org/abs/1803.10704; for embeddings Nauman et al. 2025,
        https://arxiv.org/abs/2505.23150.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        torso: TorsoFactory,
        conditioning: Literal["none", "concat", "film", "mask", "branch"] = "none",
        embedding_dim: int = 32,
        branch_depth: int = 1,
        mask_hidden: int = 32,
        one_head: bool = False,
    ) -> None:
        super().__init__()
        known = conditioning in CONDITIONINGS
        require(known, "conditioning", f"be one of {', '.join(CONDITIONINGS)}", conditioning)
        require(mask_hidden >= 1, "mask_hidden", "be at least 1", mask_hidden)
        infos = as_task_infos(tasks)
        names = owners(infos)
        self.conditioning = conditioning
        self.one_head = one_head
        if conditioning in ("concat", "film"):
            self.embedding = TaskEmbedding(names, embedding_dim)
        if conditioning == "concat":
            infos = _with_embedding(infos, embedding_dim)
        built = torso(infos)
        self.num_features = built.num_features
        self.layer_sizes = sizes_of_layers(built)
        if conditioning in ("none", "concat"):
            self.torso = built
            return
        layered = require_layers(built, f"`conditioning: {conditioning}`", "concat")
        if conditioning == "branch":
            self._branch(names, layered, torso, infos, branch_depth)
            return
        self.torso = layered
        if conditioning == "film":
            self._layers = layered.chain()
            self.film = FiLM(embedding_dim, layered.layer_sizes)
        else:
            self.masks = AttentionMasks(names, layered.layer_sizes, mask_hidden)

    def _branch(
        self,
        names: list[str],
        trunk: LayeredTorso,
        torso: TorsoFactory,
        infos: list[TaskInfo],
        depth: int,
    ) -> None:
        layers = trunk.chain()
        must = f"be at least 1 and leave one of the {len(layers)} layers to the branches"
        require(1 <= depth < len(layers), "branch_depth", must, depth)
        self.trunk = nn.ModuleList(nn.Sequential(*layer) for layer in layers[:depth])
        self.branch_of_task = TaskRows(names)
        each = list(dict.fromkeys(names))
        self.branches = Copies(each, [torso(infos) for _ in each], first=depth)

    def forward(self, observation: Tensor, task: Tensor) -> Shared:
        """Return the features of observations [S, B, *O] of tasks [S]."""
        if self.conditioning == "film":
            layers = self._filmed(observation, task)
        elif self.conditioning == "branch":
            layers = self._branched(observation, task)
        else:
            if self.conditioning == "concat":
                embedding = self.embedding(task).unsqueeze(1).expand(-1, observation.shape[1], -1)
                # First, so that its columns stay where they are as observations grow.
                observation = torch.cat([embedding.to(observation.dtype), observation], -1)
            layers = self.torso(observation)
            if self.conditioning == "mask":
                layers = self.masks(layers, task)
        return Shared(layers)

    def _filmed(self, observation: Tensor, task: Tensor) -> tuple[Tensor, ...]:
        rows, outputs = observation.shape[:2], []
        output = observation.flatten(0, 1)
        changes = self.film(self.embedding(task))
        for layer, (scale, shift) in zip(self._layers, changes, strict=True):
            for module in layer:
                output = module(output)
            # By the shape of observations: exported programs must not tell [S * B] from [S].
            grouped = output.view(*rows, *output.shape[1:])
            output = modulate(grouped, scale, shift).flatten(0, 1)
            outputs.append(output.reshape(*rows, -1))
        return tuple(outputs)

    def _branched(self, observation: Tensor, task: Tensor) -> tuple[Tensor, ...]:
        rows, outputs = observation.shape[:2], []
        output = observation.flatten(0, 1)
        for layer in self.trunk:
            output = layer(output)
            outputs.append(output.reshape(*rows, -1))
        inputs = output.view(*rows, *output.shape[1:])
        branches = self.branches(inputs, self.branch_of_task.rows_of(task))
        return (*outputs, *(layer.flatten(2) for layer in branches))


def _with_embedding(infos: Sequence[TaskInfo], size: int) -> list[TaskInfo]:
    kind = infos[0].observation_kind
    must = "be film for images, before which an embedding cannot be put"
    require(kind == "vector", "conditioning", must, "concat")
    (width,) = infos[0].observation_shape
    return [replace(info, observation_shape=(width + size,)) for info in infos]
