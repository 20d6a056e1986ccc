"""Whether a network can still learn, and how restless its policy is."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mtdqn.callbacks.inspection import Inspectable, Inspection, tasks_in
from lit_mtdqn.functional.representation import dormant_share, effective_rank, policy_churn
from lit_mtdqn.functional.td import greedy_actions
from lit_mtdqn.types import Prediction, Transition, require


class NetworkHealth(Inspection):
    """Logs dormant units, the rank of the features and how much of the policy each phase changes.

    Of the last minibatch of a phase, for all tasks together and, with `/<task>` appended, for each:

    - `health/dormant/<layer>`: share of the outputs of a layer below the head that are hardly ever
      active, layers counted from 1. Each position of a convolution's outputs counts, and outputs in
      one place of layers that tasks have for themselves count as one in what is said of all tasks.
    - `health/effective_rank`: number of directions that hold nearly all of the features; at most
      their width and the number of rows.
    - `health/policy_churn`: share of the minibatch's states whose greedy action differs before and
      after the updates of the phase.

    Each time costs two forward passes without gradient, and the singular values of the features. In
    YAML:

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.NetworkHealth
            init_args: {every_n_updates: 1000}

    Args:
        every_n_updates: Least updates between two looks, which come with rows of metrics only.
            Larger costs less.
        dormant_threshold: Activity at which a unit counts as dormant, as part of the layer's mean,
            at least 0. Larger counts more units.
        rank_delta: Part of the features' spectrum that the rank leaves out, in (0, 1). Larger
            counts fewer directions.

    Raises:
        ValueError: If a value is out of range.

    References:
        Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning",
        definition 3.1, https://arxiv.org/abs/2302.12902; Kumar et al. 2021, "Implicit
        Under-Parameterization Inhibits Data-Efficient Deep Reinforcement Learning", section 3,
        https://arxiv.org/abs/2010.14498; Schaul et al. 2022, "The Phenomenon of Policy Churn",
        https://arxiv.org/abs/2206.00730, whose churn is that of single updates.
    """

    def __init__(
        self,
        every_n_updates: int = 1000,
        dormant_threshold: float = 0.025,
        rank_delta: float = 0.01,
    ) -> None:
        super().__init__(every_n_updates)
        require(dormant_threshold >= 0.0, "dormant_threshold", "be at least 0", dormant_threshold)
        require(0.0 < rank_delta < 1.0, "rank_delta", "lie in (0, 1)", rank_delta)
        self.dormant_threshold, self.rank_delta = dormant_threshold, rank_delta
        self._actions = torch.zeros(0, dtype=torch.int64)

    def before_updates(self, learner: Inspectable, batch: Transition) -> None:
        """Note the greedy actions."""
        self._actions = _greedy_actions(learner, batch, _predict(learner, batch))

    def metrics(self, learner: Inspectable, batch: Transition) -> dict[str, Tensor]:
        """Return dormant units, ranks and churn."""
        prediction = _predict(learner, batch)
        actions = _greedy_actions(learner, batch, prediction)
        groups = {
            f"/{name}": batch.task == index for index, name in tasks_in(batch, learner).items()
        }
        groups = {"": torch.ones_like(batch.task, dtype=torch.bool), **groups}
        found = {}
        for name, group in groups.items():
            for place, layer in enumerate(prediction.layers, 1):
                share = dormant_share(layer[group].flatten(0, 1), self.dormant_threshold)
                found[f"health/dormant/{place}{name}"] = share
            rank = effective_rank(prediction.features[group].flatten(0, 1), self.rank_delta)
            found[f"health/effective_rank{name}"] = rank
            churn = policy_churn(self._actions[group], actions[group])
            found[f"health/policy_churn{name}"] = churn
        return found


@torch.no_grad()
def _predict(learner: Inspectable, batch: Transition) -> Prediction:
    """Return what the network says in evaluation mode, in which it is between phases."""
    prediction: Prediction = learner.network(batch.observation, batch.task)
    return prediction


def _greedy_actions(learner: Inspectable, batch: Transition, prediction: Prediction) -> Tensor:
    """Return the best of the actions that states allow, [S, B]; the unit of values is no matter."""
    network = learner.network
    mask = network.allowed_actions(batch.task, batch.extra.get("action_mask"))
    return greedy_actions(network.q_values(prediction), mask)
