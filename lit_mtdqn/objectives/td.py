"""Temporal-difference learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lit_mtdqn.functional.policies import scaled_log_policy, softmax_policy
from lit_mtdqn.functional.td import gather_actions, greedy_actions
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import Prediction, Transition, require

Predict = Callable[[Tensor, Tensor], Prediction]


class TDLoss(NamedTuple):
    """A temporal-difference loss and what it was computed from.

    Attributes:
        loss: [S, B].
        error: Target minus prediction, [S, B], without gradient.
        prediction: Of the online network at `observation`.
        target: In the space of the head, without gradient.
        predict: The online network, with the parameters that the update differentiates by.
    """

    loss: Tensor
    error: Tensor
    prediction: Prediction
    target: Tensor
    predict: Predict


class TD:
    """Learns the value of acting greedily, or nearly so, from bootstrapped targets.

    Args:
        bootstrap: What of the next state the target follows. `double` takes the online network's
            greedy action and the target network's value of it, which removes most of Q-learning's
            overestimation; `max` takes the target network's own maximum. `munchausen` takes the
            target network's softmax policy with its entropy, and adds to the reward how likely that
            policy makes the action taken: a bonus of at most 0 that widens action gaps. With n-step
            returns only the first action has this bonus. `distral` takes the value of the policy
            that the network's `Prior` and its values make, with the prior's own coefficients; with
            n-step returns, of the last state alone.
        alpha: Weight of Munchausen's bonus, in [0, 1]. At 0 the target is that of soft Q-learning.
        temperature: Of Munchausen's policy, in the unit that the network learns in, above 0: that
            of rewards, or of the learner's `scale`. The usual 0.03 suits returns of rewards within
            [-1, 1]. Larger is softer.
        clip: Smallest bonus before its weight, in the same unit, at most 0. It bounds what unlikely
            actions cost.

    Raises:
        ValueError: If a value is unknown or out of its range.

    References:
        Mnih et al. 2015, "Human-level control through deep reinforcement learning"; van Hasselt et
        al. 2016, "Deep Reinforcement Learning with Double Q-learning",
        https://arxiv.org/abs/1509.06461; Vieillard et al. 2020, "Munchausen Reinforcement
        Learning", section 2, https://arxiv.org/abs/2007.14430; Teh et al. 2017, "Distral",
        equation 2, https://arxiv.org/abs/1707.04175.
    """

    def __init__(
        self,
        bootstrap: Literal["double", "max", "munchausen", "distral"] = "double",
        alpha: float = 0.9,
        temperature: float = 0.03,
        clip: float = -1.0,
    ) -> None:
        known = ("double", "max", "munchausen", "distral")
        require(bootstrap in known, "bootstrap", f"be one of {', '.join(known)}", bootstrap)
        require(0.0 <= alpha <= 1.0, "alpha", "lie in [0, 1]", alpha)
        require(temperature > 0.0, "temperature", "be above 0", temperature)
        require(clip <= 0.0, "clip", "be at most 0", clip)
        self.bootstrap = bootstrap
        self.alpha, self.temperature, self.clip = alpha, temperature, clip

    def require_network(self, network: QNetwork) -> None:
        """Refuse a network that this objective cannot train.

        Raises:
            ValueError: If its head learns from other targets, or if targets need a prior that it
                lacks, or would ignore the one it follows.
        """
        must = f"be SuccessorTD for {type(network.head).__name__}"
        require(not network.head.spans_tasks, "objective", must, type(self).__name__)
        prior = network.prior
        must = "have a `prior` for targets by `distral`"
        has_prior = self.bootstrap != "distral" or prior is not None
        require(has_prior, "model.network", must, None)
        must = "be distral where the prior's `alpha` is above 0, so that values know of it"
        heeds = self.bootstrap == "distral" or prior is None or prior.alpha == 0.0
        require(heeds, "model.objective.bootstrap", must, self.bootstrap)

    def bind(self, learner: Any) -> None:
        """Take what it needs of its learner, when a fit starts; nothing unless overridden."""

    def __call__(
        self,
        batch: Transition,
        predict: Predict,
        target_network: QNetwork,
        target: Tensor | None = None,
    ) -> TDLoss:
        """Return loss and error of a minibatch.

        Args:
            batch: Leading shape [S, B].
            predict: The online network; gradients flow through its view of `observation` alone.
            target_network: Frozen; only read.
            target: What `target` returns, where that is known; or None.
        """
        prediction = predict(batch.observation, batch.task)
        if target is None:
            target = self.target_beside(prediction, batch, predict, target_network)
        loss, error = target_network.head.loss(prediction, batch.action, target)
        return TDLoss(loss, error, prediction, target, predict)

    def target_beside(
        self,
        prediction: Prediction,
        batch: Transition,
        predict: Predict,
        target_network: QNetwork,
    ) -> Tensor:
        """Return what `target` does, where the prediction at `observation` is known already."""
        return self.target(batch, predict, target_network)

    def target(self, batch: Transition, predict: Predict, target_network: QNetwork) -> Tensor:
        """Return the target in the space of the head, float32, without gradient."""
        with torch.no_grad():
            following = target_network(batch.next_observation, batch.task)
            mask = target_network.allowed_actions(batch.task, batch.extra.get("next_action_mask"))
            if self.bootstrap == "munchausen":
                return self._munchausen_target(batch, following, mask, target_network)
            if self.bootstrap == "distral":
                return self._distral_target(batch, following, mask, target_network)
            chooser = following
            if self.bootstrap == "double":
                chooser = predict(batch.next_observation, batch.task)
            head = target_network.head
            next_action = greedy_actions(head.q_values(chooser), mask)
            return head.target(batch.reward, batch.discount, following, next_action)

    def _distral_target(
        self,
        batch: Transition,
        following: Prediction,
        next_mask: Tensor | None,
        target_network: QNetwork,
    ) -> Tensor:
        head, prior = target_network.head, target_network.prior
        assert prior is not None
        assert following.prior is not None
        policy, rest = prior.bootstrap(head.q_values(following), following.prior, next_mask)
        reward = batch.reward + batch.discount * rest
        return head.target(reward, batch.discount, following, policy)

    def _munchausen_target(
        self,
        batch: Transition,
        following: Prediction,
        next_mask: Tensor | None,
        target_network: QNetwork,
    ) -> Tensor:
        head, temperature = target_network.head, self.temperature
        q_values = head.q_values(target_network(batch.observation, batch.task))
        mask = target_network.allowed_actions(batch.task, batch.extra.get("action_mask"))
        log_policy = scaled_log_policy(q_values, temperature, mask)
        bonus = gather_actions(log_policy, batch.action).clamp(min=self.clip)
        policy = softmax_policy(head.q_values(following), temperature, next_mask)
        entropy = torch.special.entr(policy).sum(-1)
        reward = batch.reward + self.alpha * bonus + batch.discount * temperature * entropy
        return head.target(reward, batch.discount, following, policy)
