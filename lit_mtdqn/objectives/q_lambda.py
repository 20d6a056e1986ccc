"""Learning from mixtures of n-step returns, without a target network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_mtdqn.functional.returns import lambda_returns
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives.td import TD, Predict
from lit_mtdqn.types import Prediction, Transition, require


class QLambda(TD):
    """Learns the values of rows whose rewards are whole returns, folded before the updates.

    Args:
        trace_decay: Lambda in [0, 1]. 0 bootstraps after one step; larger looks further ahead,
            along the actions taken, exploring ones included, and trusts values less.

    Raises:
        ValueError: If it is out of range; when a fit starts, if returns are not folded.

    References:
        Peng and Williams 1996, "Incremental Multi-Step Q-Learning"; Gallici et al. 2025,
        "Simplifying Deep Temporal Difference Learning", section 4,
        https://arxiv.org/abs/2407.04811.
    """

    def __init__(self, trace_decay: float = 0.65) -> None:
        super().__init__("max")
        require(0.0 <= trace_decay <= 1.0, "trace_decay", "lie in [0, 1]", trace_decay)
        self.trace_decay = trace_decay

    def bind(self, learner: Any) -> None:
        """Refuse learners that do not fold returns."""
        must = "be for PQN, which folds returns, and not for replays"
        require(not learner.needs_replays, "model.objective", must, type(learner).__name__)

    def folded(self, fragments: Transition, next_value: Tensor) -> Transition:
        """Return fragments whose rewards are whole returns, after which nothing is observed.

        Args:
            fragments: Leading shape [L, S, N].
            next_value: Value of each row's next state, [L, S, N].
        """
        # After the end of an episode comes a reset row.
        goes_on = (fragments.weight > 0.0).roll(-1, 0)
        returns = lambda_returns(
            fragments.reward, fragments.discount, next_value, goes_on, self.trace_decay
        )
        nothing = fragments.next_observation[..., :0].flatten(3)
        extra = {n: part for n, part in fragments.extra.items() if n != "next_action_mask"}
        return fragments._replace(
            reward=returns,
            discount=torch.zeros_like(returns),
            next_observation=nothing,
            extra=extra,
        )

    def target_beside(
        self,
        prediction: Prediction,
        batch: Transition,
        predict: Predict,
        target_network: QNetwork,
    ) -> Tensor:
        """Return the returns in the space of the head; of the prediction counts the shape alone."""
        with torch.no_grad():
            head = target_network.head
            return head.target(batch.reward, batch.discount, prediction, batch.action)

    def target(self, batch: Transition, predict: Predict, target_network: QNetwork) -> Tensor:
        """Return the returns in the space of the head, float32, without gradient."""
        with torch.no_grad():
            prediction = predict(batch.observation, batch.task)
        return self.target_beside(prediction, batch, predict, target_network)
