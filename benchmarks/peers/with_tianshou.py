"""A work done by tianshou's `DQN.run_training`, without its log."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from measuring import Array, Goal, Stopwatch, register_environments
from planes import Planes
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net
from torch import Tensor, nn
from works import Work


class ReachedError(Exception):
    """The goal is."""


class Network(nn.Module):
    """MinAtar's network."""

    def __init__(self, shape: tuple[int, ...], hidden: int, actions: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Planes(shape, hidden), nn.Linear(hidden, actions))

    def forward(self, obs: Array, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        """Return action values and no state."""
        return self.layers(torch.as_tensor(obs)), state


class Program:
    """The whole training.

    Args:
        work: What is to be done.
        seed: Of everything.
        folder: Not needed.
    """

    def __init__(self, work: Work, seed: int, folder: Path) -> None:
        self._work = work
        self._warmup = 0
        register_environments(work)
        np.random.seed(seed)  # noqa: NPY002 tianshou explores by it
        envs = DummyVectorEnv([lambda: gymnasium.make(work.env) for _ in range(work.num_envs)])
        envs.seed(seed)
        one: Any = gymnasium.make(work.env)
        self._policy = DiscreteQLearningPolicy(
            model=_network(work, one.observation_space.shape, int(one.action_space.n)),
            action_space=one.action_space,
            observation_space=one.observation_space,
            eps_training=1.0,
        )
        self._algorithm = DQN(
            policy=self._policy,
            optim=AdamOptimizerFactory(lr=work.lr),
            gamma=work.gamma,
            n_step_return_horizon=work.n_step,
            target_update_freq=work.target_updates,
            is_double=work.double,
            huber_loss_delta=1.0 if work.loss == "huber" else None,
        )
        # The constructor has no argument for it.
        self._algorithm.optim._max_grad_norm = work.max_grad_norm
        buffer = VectorReplayBuffer(work.replay_capacity, work.num_envs)
        self._collector = Collector[CollectStats](
            self._algorithm, envs, buffer, exploration_noise=True
        )

    def train(self, goal: Goal, stopwatch: Stopwatch) -> None:
        """Train to the goal or the end."""
        work = self._work

        def before_step(epoch: int, env_step: int) -> None:
            if goal.look(env_step + self._warmup, self.act):
                raise ReachedError
            self._policy.set_eps_training(work.epsilon(env_step + self._warmup))

        self._collector.reset()
        if work.warmup_env_steps:
            found = self._collector.collect(n_step=work.warmup_env_steps, random=True)
            self._warmup = found.n_collected_steps
        parameters = OffPolicyTrainerParams(
            training_collector=self._collector,
            max_epochs=1,
            epoch_num_steps=work.total_env_steps - work.warmup_env_steps,
            collection_step_num_env_steps=work.cycle_env_steps,
            update_step_num_gradient_steps_per_sample=work.replay_ratio,
            batch_size=work.batch_size,
            training_fn=before_step,
            verbose=False,
            show_progress=False,
        )
        with suppress(ReachedError):
            self._algorithm.run_training(parameters)

    def counts(self) -> tuple[int, int]:
        """Return env steps and updates."""
        # The trainer makes the collector forget what it did before.
        return self._collector.collect_step + self._warmup, self._algorithm._iter

    @torch.no_grad()
    def act(self, observation: Array, task: int) -> Array:
        """Return greedy actions."""
        found = self._policy(Batch(obs=observation, info=Batch()))
        return np.asarray(found.act)


def _network(work: Work, shape: tuple[int, ...], actions: int) -> Any:
    if work.torso == "minatar":
        return Network(shape, work.hidden[0], actions)
    stream = {"hidden_sizes": work.dueling_hidden}
    return Net(
        state_shape=shape,
        action_shape=actions,
        hidden_sizes=work.hidden,
        dueling_param=(stream, stream) if work.dueling_hidden else None,
    )
