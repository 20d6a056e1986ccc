"""Deep Q-learning and its family, on one task or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lit_mtdqn.algorithms.base import Parameters, ValueLearner
from lit_mtdqn.algorithms.factories import as_factory
from lit_mtdqn.algorithms.optimizers import Adam
from lit_mtdqn.functional.gradients import GroupParameters
from lit_mtdqn.networks import QNetwork, predict_by_group
from lit_mtdqn.objectives import TD, Predict, TDLoss
from lit_mtdqn.scaling import Scale
from lit_mtdqn.types import Losses, Prediction, Schedule, TaskInfos, Transition


class DQN(ValueLearner):
    """Deep Q-network: learns action values from replayed transitions and a slow target network.

    Double DQN, dueling, n-step and Huber are values of its parts: `TD.bootstrap`, `DuelingHead`,
    `TaskSpec.n_step`, the head's `loss`. With several tasks it shares the torso between them and
    gives each a head of its own, unless the network's `sharing` says otherwise. Unlike the paper it
    uses Adam on squared errors and epsilon-greedy draws per environment.

    Args:
        tasks: The tasks, as `RolloutDataModule.task_infos` has them; linked on the command line.
        network: Makes the Q-network from the tasks.
        objective: Makes the temporal-difference objective.
        optimizer: Makes the optimiser from the parameters.
        learning_rate_schedule: Factor on the learning rate over updates; None keeps it.
        max_grad_norm: Norm to which the gradient of all parameters together is clipped; None does
            not clip. Smaller is steadier and slower.
        scale: Makes what brings the tasks' values to one scale; None learns raw values.

    References:
        Mnih et al. 2015, "Human-level control through deep reinforcement learning",
        https://doi.org/10.1038/nature14236.
    """

    def __init__(
        self,
        tasks: TaskInfos,
        network: Callable[[TaskInfos], QNetwork] = QNetwork,
        objective: Callable[[], TD] = TD,
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer] = Adam,
        learning_rate_schedule: Schedule | None = None,
        max_grad_norm: float | None = 10.0,
        scale: Callable[[TaskInfos], Scale] | None = None,
    ) -> None:
        super().__init__(tasks, network, optimizer, learning_rate_schedule, max_grad_norm, scale)
        self.objective: TD = as_factory(objective)()
        self.objective.require_network(self.network)

    def on_fit_start(self) -> None:
        """Let the objective look at what it will learn from."""
        super().on_fit_start()
        self.objective.bind(self)

    def losses(
        self,
        batch: Transition,
        parameters: Parameters | None = None,
        target: Tensor | None = None,
    ) -> Losses:
        """Return the temporal-difference losses of a minibatch, and auxiliary ones."""
        td = self.objective(batch, self._predictor(parameters), self.target_network, target)
        return Losses(td.loss, td.error, self.auxiliary_losses(batch, td), {}, td.target)

    def target(self, batch: Transition) -> Tensor:
        """Return the temporal-difference target of a minibatch."""
        return self.objective.target(batch, self.network, self.target_network)

    def auxiliary_losses(self, batch: Transition, td: TDLoss) -> dict[str, Tensor]:
        """Return further terms by name, from what the temporal-difference loss has computed."""
        mask = batch.extra.get("action_mask")
        terms = self.network.auxiliary(td.prediction, batch.task, mask)
        # Terms of rows are weighted as all rows are.
        return {n: term * batch.weight if term.dim() == 2 else term for n, term in terms.items()}

    def _predictor(self, parameters: Parameters | None) -> Predict:
        """Return the online network, with other parameters if there are any."""
        if parameters is None:
            return self.network
        if isinstance(parameters, GroupParameters):
            return partial(self._predict_by_group, parameters)
        call = partial(functional_call, self.network, dict(parameters))
        return lambda observation, task: call((observation, task))

    def _predict_by_group(
        self, copies: GroupParameters, observation: Tensor, task: Tensor
    ) -> Prediction:
        # Copies have the network's values: without gradient they would cost time for nothing.
        if not torch.is_grad_enabled():
            prediction: Prediction = self.network(observation, task)
            return prediction
        return predict_by_group(self.network, copies.for_groups(len(task)), observation, task)
