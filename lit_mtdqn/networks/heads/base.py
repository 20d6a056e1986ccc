"""What a head is, and the layers that the heads of this package have in common."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.masking import padded_action_mask
from lit_mtdqn.networks.noise import NoisyLinear, task_linear
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.types import Prediction, TaskInfos, as_task_infos, require


class Head(nn.Module, ABC):
    """Base of all heads: what an output means, what its target is, and how far apart they are.

    Attributes:
        can_rescale: Whether `rescale_` can be asked.
        spans_tasks: Whether it compares what the policies of all tasks gather.
        meant_by: Names of arguments without which outputs say nothing, such as the ends of a
            support: heads that differ in them do not understand each other's weights.
    """

    can_rescale = False
    spans_tasks = False
    meant_by: tuple[str, ...] = ()

    @classmethod
    def meaning(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what outputs are meant by, in a head of some arguments and defaults."""
        known = inspect.signature(cls).parameters
        defaults = {name: getattr(known.get(name), "default", None) for name in cls.meant_by}
        return {name: arguments.get(name, default) for name, default in defaults.items()}

    @abstractmethod
    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return the raw output [S, B, A, ...] for features [S, B, F] of tasks [S]."""

    def fractions(self, rows: int) -> Tensor | None:
        """Return which quantiles the forward pass of so many rows predicts, or None.

        Returns:
            [B, Z], or [1, Z] where all rows have the same.
        """
        return None

    @abstractmethod
    def q_values(self, prediction: Prediction) -> Tensor:
        """Return the action values [S, B, A] that a prediction means."""

    @abstractmethod
    def target(
        self, reward: Tensor, discount: Tensor, next_prediction: Prediction, next_action: Tensor
    ) -> Tensor:
        """Return what `loss` takes as target, from the target network's next prediction.

        Args:
            reward: [S, B].
            discount: [S, B].
            next_prediction: Of the target network at the next observation.
            next_action: The action to bootstrap from, integers [S, B], or a policy to bootstrap
                from, probabilities [S, B, A].
        """

    @abstractmethod
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss [S, B] and the error [S, B], without gradient.

        The error's size says how much there is to learn from a transition; for heads of one
        expected value, and of quantiles, it is the value's target minus its prediction.
        """

    def rescale_(self, factor: Tensor, shift: Tensor) -> None:
        """Multiply each task's action values by a factor and add a shift, by new weights.

        Args:
            factor: [T].
            shift: [T].
        """
        raise NotImplementedError


class LayeredHead(Head):
    """Base of heads whose outputs come from a linear layer per head, in one batched product.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        outputs: Numbers per action, Z; None for one number, without an axis of its own.
        dueling: Whether outputs are sums of a part for the state and a centred part for the action.
            Each part then has a stream of layers.
        hidden: Width of a layer before the last one, which all heads share; 0 has none.
        init_scale: Factor on the usual initial weights of the last layers.
        noisy_sigma: Initial scale of the noise of the layers, or None for layers without noise.
    """

    action_share: Tensor
    can_rescale = True

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        outputs: int | None,
        *,
        dueling: bool,
        hidden: int,
        init_scale: float,
        noisy_sigma: float | None,
    ) -> None:
        super().__init__()
        require(hidden >= 0, "hidden", "be at least 0", hidden)
        infos = as_task_infos(tasks)
        names = [info.head for info in infos]
        actions = [info.num_actions for info in infos]
        each = outputs or 1
        self.dueling, self.hidden = dueling, hidden
        self._outputs, self._each = outputs, each
        self._is_one_layer = outputs is None and not dueling and not hidden
        width = hidden or in_features
        wide, narrow = [each * count for count in actions], [each] * len(names)
        if not dueling:
            self.stream = _stream(in_features, hidden, noisy_sigma)
            self.values = task_linear(names, width, wide, init_scale, noisy_sigma)
            return
        mask = padded_action_mask(actions).float()
        share = (mask / mask.sum(-1, keepdim=True))[:, None, :, None]
        self.register_buffer("action_share", share, persistent=False)
        self.value_stream = _stream(in_features, hidden, noisy_sigma)
        self.advantage_stream = _stream(in_features, hidden, noisy_sigma)
        self.value = task_linear(names, width, narrow, init_scale, noisy_sigma)
        self.advantage = task_linear(names, width, wide, init_scale, noisy_sigma)

    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return the outputs [S, B, A], or [S, B, A, Z] for several per action."""
        if self._is_one_layer:
            values: Tensor = self.values(features, task)
            return values
        output = self.by_action(features, task)
        return output.squeeze(-1) if self._outputs is None else output

    def by_action(self, features: Tensor, task: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the outputs [S, B, A, Z], Z of which is 1 for one per action.

        Args:
            features: [S, B, F].
            task: [S].
            scale: Vectors that multiply the features, [B, Z, F] or [1, Z, F], each of which makes
                one output per action; None has no such vectors.
        """
        if not self.dueling:
            return self._layers(self.stream, self.values, features, task, scale)
        # Under `vmap` tensors do not say that they require a gradient.
        if torch.is_grad_enabled():
            features = _scale_gradient(features, 1.0 / math.sqrt(2.0))
        value = self._layers(self.value_stream, self.value, features, task, scale)
        advantage = self._layers(self.advantage_stream, self.advantage, features, task, scale)
        # Weights of 0 keep padded actions out of the mean, and the gradient out of them.
        mean = (advantage * self.action_share[task]).sum(2, keepdim=True)
        return value + advantage - mean

    def rescale_(self, factor: Tensor, shift: Tensor) -> None:
        """Multiply each task's outputs by a factor and add a shift, in the last layers."""
        if not self.dueling:
            self.values.rescale_(factor, shift)
            return
        self.value.rescale_(factor, shift)
        self.advantage.rescale_(factor, torch.zeros_like(shift))

    def _layers(
        self,
        stream: nn.Module,
        last: TaskLinear,
        features: Tensor,
        task: Tensor,
        scale: Tensor | None,
    ) -> Tensor:
        groups, rows = features.shape[:2]
        if scale is None:
            output: Tensor = last(stream(features), task)
            return output.view(groups, rows, -1, self._each)
        if not self.hidden:
            return last.scaled(features, scale, task).transpose(2, 3)
        hidden = stream(features.unsqueeze(2) * scale)
        output = last(hidden.flatten(1, 2), task)
        return output.view(groups, rows, scale.shape[1], -1).transpose(2, 3)


def _stream(in_features: int, hidden: int, noisy_sigma: float | None) -> nn.Module:
    if not hidden:
        return nn.Identity()
    if noisy_sigma is None:
        return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU())
    return nn.Sequential(NoisyLinear(in_features, hidden, noisy_sigma), nn.ReLU())


def _scale_gradient(tensor: Tensor, scale: float) -> Tensor:
    return torch.lerp(tensor.detach(), tensor, scale)
