"""From features to action values, and the loss in each head's own space."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from lit_mtdqn.functional.masking import padded_action_mask
from lit_mtdqn.functional.td import gather_actions, regression_loss, td_target
from lit_mtdqn.networks.task_linear import TaskLinear
from lit_mtdqn.types import Prediction, TaskInfos, as_task_infos, require


class Head(nn.Module, ABC):
    """Base of all heads: what an output means, what its target is, and how far apart they are."""

    @abstractmethod
    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return the raw output [S, B, A, ...] for features [S, B, F] of tasks [S]."""

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
            next_action: The action to bootstrap from, [S, B].
        """

    @abstractmethod
    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss [S, B] and the error, target minus prediction, [S, B]."""


class _ScalarHead(Head):
    """One number per action: the expected return."""

    def __init__(self, loss: str, huber_delta: float) -> None:
        super().__init__()
        require(loss in ("mse", "huber"), "loss", "be mse or huber", loss)
        require(huber_delta > 0.0, "huber_delta", "be above 0", huber_delta)
        self.huber_delta = huber_delta if loss == "huber" else None

    def q_values(self, prediction: Prediction) -> Tensor:
        return prediction.output

    def target(
        self, reward: Tensor, discount: Tensor, next_prediction: Prediction, next_action: Tensor
    ) -> Tensor:
        next_value = gather_actions(next_prediction.output.float(), next_action)
        return td_target(reward, discount, next_value)

    def loss(self, prediction: Prediction, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        chosen_q = gather_actions(prediction.output, action).float()
        loss = regression_loss(chosen_q, target, huber_delta=self.huber_delta)
        return loss, target - chosen_q.detach()


class LinearHead(_ScalarHead):
    """Action values by one linear layer per head.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        loss: `mse`, or `huber`, which limits the pull of large errors.
        huber_delta: Error at which the Huber loss turns linear, in units of the return.
        init_scale: Factor on the usual initial weights. Near 0 all values start near 0, so that
            early targets are rewards and not noise.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        loss: Literal["mse", "huber"] = "mse",
        huber_delta: float = 1.0,
        init_scale: float = 0.01,
    ) -> None:
        super().__init__(loss, huber_delta)
        infos = as_task_infos(tasks)
        actions = [info.num_actions for info in infos]
        self.values = TaskLinear([i.head for i in infos], in_features, actions, init_scale)

    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return the values [S, B, A]."""
        output: Tensor = self.values(features, task)
        return output


class DuelingHead(_ScalarHead):
    """Action values as a state value plus centred advantages.

    `Q(s, a) = V(s) + A(s, a) - mean of A(s, .)`, the mean over the task's own actions. Each stream
    has a hidden layer that all heads share and a linear layer per head. The gradient that enters
    the torso is scaled by 1/sqrt(2), as two streams add theirs.

    Args:
        tasks: The tasks; given by the learner.
        in_features: Size of the features; given by the network.
        hidden: Width of each stream's hidden layer; 0 has none.
        loss: `mse`, or `huber`, which limits the pull of large errors.
        huber_delta: Error at which the Huber loss turns linear, in units of the return.
        init_scale: Factor on the usual initial weights of the last layers.

    References:
        Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning",
        equation 9, https://arxiv.org/abs/1511.06581.
    """

    action_mask: Tensor

    def __init__(
        self,
        tasks: TaskInfos,
        in_features: int,
        hidden: int = 0,
        loss: Literal["mse", "huber"] = "mse",
        huber_delta: float = 1.0,
        init_scale: float = 0.01,
    ) -> None:
        super().__init__(loss, huber_delta)
        require(hidden >= 0, "hidden", "be at least 0", hidden)
        infos = as_task_infos(tasks)
        names = [info.head for info in infos]
        actions = [info.num_actions for info in infos]
        action_mask = padded_action_mask(actions)
        self.register_buffer("action_mask", action_mask, persistent=False)
        width = hidden or in_features
        self.value_stream = _stream(in_features, hidden)
        self.advantage_stream = _stream(in_features, hidden)
        self.value = TaskLinear(names, width, [1] * len(names), init_scale)
        self.advantage = TaskLinear(names, width, actions, init_scale)

    def forward(self, features: Tensor, task: Tensor) -> Tensor:
        """Return the values [S, B, A]."""
        if features.requires_grad:
            features = _scale_gradient(features, 1.0 / math.sqrt(2.0))
        value: Tensor = self.value(self.value_stream(features), task)
        advantage: Tensor = self.advantage(self.advantage_stream(features), task)
        mask = self.action_mask[task].unsqueeze(1)
        mean = (advantage * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
        return value + advantage - mean


def _stream(in_features: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU()) if hidden else nn.Identity()


def _scale_gradient(tensor: Tensor, scale: float) -> Tensor:
    return torch.lerp(tensor.detach(), tensor, scale)
