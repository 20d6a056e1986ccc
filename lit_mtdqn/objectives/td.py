"""Temporal-difference learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lit_mtdqn.functional.td import greedy_actions
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import Prediction, Transition, require

Predict = Callable[[Tensor, Tensor], Prediction]


class TDLoss(NamedTuple):
    """Loss [S, B] and error [S, B], and the online network's prediction that they come from."""

    loss: Tensor
    error: Tensor
    prediction: Prediction


class TD:
    """Learns the value of acting greedily, from bootstrapped targets.

    Args:
        bootstrap: Which action of the next state the target follows. `double` takes the online
            network's greedy action and the target network's value of it, which removes most of
            Q-learning's overestimation; `max` takes the target network's own maximum.

    Raises:
        ValueError: If `bootstrap` is unknown.

    References:
        Mnih et al. 2015, "Human-level control through deep reinforcement learning"; van Hasselt et
        al. 2016, "Deep Reinforcement Learning with Double Q-learning",
        https://arxiv.org/abs/1509.06461.
    """

    def __init__(self, bootstrap: Literal["double", "max"] = "double") -> None:
        require(bootstrap in ("double", "max"), "bootstrap", "be double or max", bootstrap)
        self.bootstrap = bootstrap

    def __call__(self, batch: Transition, predict: Predict, target_network: QNetwork) -> TDLoss:
        """Return loss and error of a minibatch.

        Args:
            batch: Leading shape [S, B].
            predict: The online network; gradients flow through its view of `observation` alone.
            target_network: Frozen; only read.
        """
        prediction = predict(batch.observation, batch.task)
        target = self.target(batch, predict, target_network)
        loss, error = target_network.head.loss(prediction, batch.action, target)
        return TDLoss(loss, error, prediction)

    def target(self, batch: Transition, predict: Predict, target_network: QNetwork) -> Tensor:
        """Return the target in the space of the head, float32, without gradient."""
        with torch.no_grad():
            following = target_network(batch.next_observation, batch.task)
            chooser = following
            if self.bootstrap == "double":
                chooser = predict(batch.next_observation, batch.task)
            mask = batch.extra.get("next_action_mask")
            if mask is None:
                mask = target_network.allowed_actions(batch.task)
            head = target_network.head
            next_action = greedy_actions(head.q_values(chooser), mask)
            return head.target(batch.reward, batch.discount, following, next_action)
