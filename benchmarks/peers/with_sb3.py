"""A work done by stable-baselines3's `DQN.learn`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Array, Goal, Stopwatch, register_environments
from planes import Planes
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor
from works import Work


class Features(BaseFeaturesExtractor):  # type: ignore[misc]
    """MinAtar's network below its last layer."""

    def __init__(self, observation_space: Any, hidden: int) -> None:
        super().__init__(observation_space, hidden)
        self.planes = Planes(observation_space.shape, hidden)

    def forward(self, observation: Tensor) -> Tensor:
        """Return features."""
        features: Tensor = self.planes(observation)
        return features


class Watch(BaseCallback):  # type: ignore[misc]
    """Ends the training at its goal."""

    def __init__(self, program: Program, goal: Goal) -> None:
        super().__init__()
        self.program, self.goal = program, goal

    def _on_rollout_start(self) -> None:
        self.goal.look(self.num_timesteps, self.program.act)

    def _on_step(self) -> bool:
        return not self.goal.reached


class Program:
    """The whole training.

    Args:
        work: What is to be done.
        seed: Of everything.
        folder: Not needed.
    """

    def __init__(self, work: Work, seed: int, folder: Path) -> None:
        register_environments(work)
        policy: dict[str, Any] = {"net_arch": list(work.hidden)}
        if work.torso == "minatar":
            policy = {
                "net_arch": [],
                "features_extractor_class": Features,
                "features_extractor_kwargs": {"hidden": work.hidden[0]},
            }
        assert work.loss == "huber"
        assert not work.double
        assert work.epsilon_decay == 0.0
        self._total = work.total_env_steps
        self._model = DQN(
            "MlpPolicy",
            make_vec_env(work.env, n_envs=work.num_envs, seed=seed),
            learning_rate=work.lr,
            buffer_size=work.replay_capacity,
            learning_starts=work.warmup_env_steps,
            batch_size=work.batch_size,
            gamma=work.gamma,
            n_steps=work.n_step,
            train_freq=work.cycle_vector_steps,
            gradient_steps=work.cycle_updates,
            target_update_interval=work.target_env_steps,
            exploration_fraction=min(work.epsilon_env_steps / work.total_env_steps, 1.0),
            exploration_initial_eps=work.epsilon_start,
            exploration_final_eps=work.epsilon_end,
            max_grad_norm=work.max_grad_norm,
            policy_kwargs=policy,
            seed=seed,
            device="cpu",
        )

    def train(self, goal: Goal, stopwatch: Stopwatch) -> None:
        """Train to the goal or the end."""
        self._model.learn(self._total, callback=Watch(self, goal))

    def counts(self) -> tuple[int, int]:
        """Return env steps and updates."""
        return self._model.num_timesteps, self._model._n_updates

    @torch.no_grad()
    def act(self, observation: Array, task: int) -> Array:
        """Return greedy actions."""
        actions, _ = self._model.predict(observation, deterministic=True)
        return np.asarray(actions)
