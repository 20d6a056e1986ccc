"""A work done by torchrl's parts, joined as in its sota-implementations/dqn/dqn_cartpole.py.

Without what that script does for its log: summed rewards and counted steps of episodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Array, Goal, Stopwatch, register_environments
from planes import Planes
from tensordict.nn import TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs.libs.gym import GymEnv
from torchrl.modules import MLP, EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate
from works import Work


class Program:
    """The whole training.

    Args:
        work: What is to be done.
        seed: Of everything.
        folder: Not needed.
    """

    def __init__(self, work: Work, seed: int, folder: Path) -> None:
        self._work = work
        register_environments(work)
        assert work.num_envs == 1
        assert not work.double
        env = GymEnv(work.env, device="cpu")
        env.set_seed(seed)
        actions = env.action_spec.space.n
        self._network = _network(work, env.observation_spec["observation"].shape, actions)
        policy = QValueActor(self._network, spec=env.action_spec, in_keys=["observation"])
        self._explore = EGreedyModule(
            annealing_num_steps=work.epsilon_env_steps,
            eps_init=work.epsilon_start,
            eps_end=work.epsilon_end,
            spec=policy.spec,
        )
        self._buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(work.replay_capacity), batch_size=work.batch_size
        )
        loss = "smooth_l1" if work.loss == "huber" else "l2"
        self._loss = DQNLoss(policy, loss_function=loss, delay_value=True, double_dqn=False)
        self._loss.make_value_estimator(gamma=work.gamma)
        self._target = HardUpdate(self._loss, value_network_update_interval=work.target_updates)
        self._optimizer = torch.optim.Adam(self._loss.parameters(), lr=work.lr)
        self._collector = Collector(
            env,
            TensorDictSequential(policy, self._explore),
            frames_per_batch=work.cycle_env_steps,
            total_frames=work.total_env_steps,
            init_random_frames=work.warmup_env_steps or None,
        )
        self._env_steps = self._updates = 0

    def train(self, goal: Goal, stopwatch: Stopwatch) -> None:
        """Train to the goal or the end."""
        work = self._work
        for data in self._collector:
            self._env_steps += data.numel()
            self._buffer.extend(data.reshape(-1))
            self._explore.step(data.numel())
            if self._env_steps < work.warmup_env_steps:
                continue
            for _ in range(work.cycle_updates):
                self._update(self._buffer.sample())
            self._collector.update_policy_weights_()
            if goal.look(self._env_steps, self.act):
                break
        self._collector.shutdown()

    def _update(self, batch: Any) -> None:
        loss = self._loss(batch)["loss"]
        self._optimizer.zero_grad()
        loss.backward()
        if self._work.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._loss.parameters(), self._work.max_grad_norm)
        self._optimizer.step()
        self._target.step()
        self._updates += 1

    def counts(self) -> tuple[int, int]:
        """Return env steps and updates."""
        return self._env_steps, self._updates

    @torch.no_grad()
    def act(self, observation: Array, task: int) -> Array:
        """Return greedy actions."""
        values = self._network(torch.as_tensor(np.asarray(observation)))
        return np.asarray(values.argmax(-1))


def _network(work: Work, shape: tuple[int, ...], actions: int) -> nn.Module:
    if work.torso == "minatar":
        return nn.Sequential(Planes(shape, work.hidden[0]), nn.Linear(work.hidden[0], actions))
    network: nn.Module = MLP(
        in_features=shape[-1],
        out_features=actions,
        num_cells=list(work.hidden),
        activation_class=nn.ReLU,
    )
    return network
