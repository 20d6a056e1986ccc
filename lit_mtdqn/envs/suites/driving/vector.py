"""Batched driving environment."""

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.driving.dynamics import (
    NUM_ACTIONS,
    Outcome,
    drive,
    judge,
    light_colors,
)
from lit_mtdqn.envs.suites.driving.observation import OBSERVATION_SIZE, observe
from lit_mtdqn.envs.suites.driving.reward import rewards
from lit_mtdqn.envs.suites.driving.states import DrivingStates
from lit_mtdqn.envs.suites.driving.tasks import TASKS

DEFAULT_MAX_EPISODE_STEPS = 200


class DrivingVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.integer], NDArray[Any]]):
    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        task: str,
        num_envs: int = 1,
        max_episode_steps: int = DEFAULT_MAX_EPISODE_STEPS,
        render_mode: str | None = None,
    ) -> None:
        self.task = TASKS[task]
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.single_action_space = spaces.Discrete(NUM_ACTIONS)
        self.single_observation_space = spaces.Box(-1.0, 1.0, (OBSERVATION_SIZE,), np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._states = DrivingStates(num_envs)
        self._outcome = np.zeros(num_envs, dtype=np.int8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._states.values[:] = self.task.draw(self.num_envs, self.np_random)
        self._outcome[:] = Outcome.RUNNING
        return observe(self._states, self.task), {}

    def step(self, actions):
        restart = self._outcome > 0
        was_red = light_colors(self._states)[2] if self.task.has_light else None
        was_green = light_colors(self._states)[0]
        moved = drive(self._states, actions)
        outcome = judge(self._states, self.task, moved, was_red)
        outcome[(outcome == 0) & (self._states.step >= self.max_episode_steps)] = Outcome.TIME_UP
        reward = rewards(self._states, moved, outcome, self.task, was_green).astype(np.float32)
        if restart.any():
            self._states.values[:, restart] = self.task.draw(int(restart.sum()), self.np_random)
            outcome[restart] = Outcome.RUNNING
            reward[restart] = 0.0
        self._outcome = outcome
        info = {"success": outcome == Outcome.SUCCESS, "_success": outcome > 0}
        return (
            observe(self._states, self.task),
            reward,
            outcome > Outcome.TIME_UP,
            outcome == Outcome.TIME_UP,
            info,
        )
