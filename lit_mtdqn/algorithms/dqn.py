"""Deep Q-learning and its family, on one task or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lit_mtdqn.algorithms.base import ValueLearner
from lit_mtdqn.algorithms.factories import as_factory
from lit_mtdqn.algorithms.optimizers import Adam
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.objectives import TD
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
    ) -> None:
        super().__init__(tasks, network, optimizer, learning_rate_schedule, max_grad_norm)
        self.objective: TD = as_factory(objective)()

    def losses(self, batch: Transition, parameters: dict[str, Tensor] | None = None) -> Losses:
        """Return the temporal-difference losses of a minibatch and the terms of the sharing."""

        def with_parameters(observation: Tensor, task: Tensor) -> Prediction:
            assert parameters is not None
            return functional_call(self.network, parameters, (observation, task))  # type: ignore[no-any-return]

        predict = self.network if parameters is None else with_parameters
        td = self.objective(batch, predict, self.target_network)
        auxiliary = self.network.auxiliary(td.prediction, batch.task)
        return Losses(td.loss, td.error, auxiliary, {})
