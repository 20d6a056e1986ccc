"""One torso for all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lit_mtdqn.networks.copies import Copies, as_rows
from lit_mtdqn.networks.rows import RowOfTask, TaskEmbedding
from lit_mtdqn.networks.sharing.base import Shared, Sharing, TorsoFactory, require_layers
from lit_mtdqn.networks.sharing.conditioning import AttentionMasks, FiLM, modulate
from lit_mtdqn.networks.torsos import LayeredTorso, Torso
from lit_mtdqn.types import TaskInfo, TaskInfos, as_task_infos, require

CONDITIONINGS = ("none", "concat", "film", "mask", "branch")


class SharedTrunk(Sharing):
    """One torso for all tasks, which a task may condition.

    Args:
        tasks: The tasks; given by the learner.
        torso: Makes the torso; given by the network.
        conditioning: What a task changes. `none`: nothing, tasks differ in their heads alone (hard
            parameter sharing). `concat`: a learned embedding of the task is appended to vector
            observations. `film`: an embedding scales and shifts each layer. `mask`: each task
            weighs the outputs of all layers by attention masks of its own. `branch`: only the first
            layers are shared, each task has the rest for itself.
        embedding_dim: Size of the embedding for `concat` and `film`.
        branch_depth: Number of shared layers for `branch`, at least 1 and less than all. More share
            more.
        mask_hidden: Width inside the masks of `mask`.
        one_head: Whether all tasks use one head (strict sharing). What tells them apart is then the
            conditioning alone, and with `none` the observation.
        width_multiplier: Factor on the widths of the torso, above 0, for comparisons at equal
            numbers of parameters; `matched_width` finds it.

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
        width_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        known = conditioning in CONDITIONINGS
        require(known, "conditioning", f"be one of {', '.join(CONDITIONINGS)}", conditioning)
        infos = as_task_infos(tasks)
        names = [info.name for info in infos]
        self.conditioning = conditioning
        self.one_head = one_head
        if conditioning in ("concat", "film"):
            self.embedding = TaskEmbedding(names, embedding_dim)
        if conditioning == "concat":
            infos = _with_embedding(infos, embedding_dim)
        self.torso = _widened(torso, infos, width_multiplier)
        self.num_features = self.torso.num_features
        if conditioning == "film":
            self.film = FiLM(embedding_dim, self._layered().layer_sizes)
        elif conditioning == "mask":
            require(mask_hidden >= 1, "mask_hidden", "be at least 1", mask_hidden)
            self.masks = AttentionMasks(names, self._layered().layer_sizes, mask_hidden)
        elif conditioning == "branch":
            copies = [_widened(torso, infos, width_multiplier) for _ in infos]
            self._branch(names, copies, branch_depth)

    def _layered(self) -> LayeredTorso:
        return require_layers(self.torso, f"`conditioning: {self.conditioning}`", "concat")

    def _branch(self, names: Sequence[str], copies: Sequence[Torso], depth: int) -> None:
        trunk = self._layered()
        layers = len(trunk.layer_sizes)
        must = f"be at least 1 and leave one of the {layers} layers to the branches"
        require(1 <= depth < layers, "branch_depth", must, depth)
        trunk.keep_first(depth)
        self.row_of_task = RowOfTask(names)
        self.branches = Copies(names, copies, first=depth)

    def forward(self, observation: Tensor, task: Tensor) -> Shared:
        """Return the features of observations [S, B, *O] of tasks [S]."""
        if self.conditioning == "concat":
            embedding = self.embedding(task).unsqueeze(1).expand(-1, observation.shape[1], -1)
            observation = torch.cat([observation, embedding.to(observation.dtype)], -1)
        elif self.conditioning == "film":
            return self._filmed(observation, task)
        elif self.conditioning == "branch":
            return self._branched(observation, task)
        groups, rows = observation.shape[:2]
        layers = self.torso(observation.flatten(0, 1))
        if self.conditioning == "mask":
            seen = self.masks(layers, task)
            return Shared(seen[-1], as_rows(seen))
        return Shared(layers[-1].view(groups, rows, -1), layers)

    def _filmed(self, observation: Tensor, task: Tensor) -> Shared:
        changes = self.film(self.embedding(task))
        outputs = self._layered().run(
            observation.flatten(0, 1), lambda layer, output: modulate(output, *changes[layer])
        )
        layers = tuple(output.flatten(1) for output in outputs)
        return Shared(layers[-1].view(*observation.shape[:2], -1), layers)

    def _branched(self, observation: Tensor, task: Tensor) -> Shared:
        trunk = self._layered().run(observation.flatten(0, 1))
        inputs = trunk[-1].view(*observation.shape[:2], *trunk[-1].shape[1:])
        branches = self.branches(inputs, self.row_of_task.select(task))
        layers = (*(output.flatten(1) for output in trunk), *as_rows(branches))
        return Shared(branches[-1], layers)


def _with_embedding(infos: Sequence[TaskInfo], size: int) -> list[TaskInfo]:
    kind = infos[0].observation_kind
    must = "be film for images, to which an embedding cannot be appended"
    require(kind == "vector", "conditioning", must, "concat")
    (width,) = infos[0].observation_shape
    return [replace(info, observation_shape=(width + size,)) for info in infos]


def _widened(torso: TorsoFactory, infos: list[TaskInfo], width_multiplier: float) -> Torso:
    if width_multiplier == 1.0:
        return torso(infos)
    try:
        return torso(infos, width_multiplier=width_multiplier)  # type: ignore[call-arg]
    except TypeError as error:
        raise TypeError(
            "`torso` must take `width_multiplier` where the trunk has one. "
            f"Got {torso!r}, which does not."
        ) from error
