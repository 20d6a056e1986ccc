"""Acting in an environment of one's own making."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import concatenate, create_empty_array
from torch import Tensor

from lit_mtdqn.deployment.greedy_policy import GreedyPolicy
from lit_mtdqn.envs import Layout, TaskEnv, without_processes
from lit_mtdqn.types import TaskSpec


class Actor:
    """Takes the greedy actions of one task, one raw observation of its environment at a time.

    Observations are converted and padded, and actions counted, as the run's own environment has it,
    which is built once to ask for that.

    Args:
        policy: Takes the actions.
        name: The task's name.
        spec: What the environment is.
        number: The task's number.
        layout: Padded shapes of the run.
    """

    def __init__(
        self, policy: GreedyPolicy, name: str, spec: TaskSpec, number: int, layout: Layout
    ) -> None:
        self._policy = policy
        self._task = torch.tensor([number])
        self._env = TaskEnv(name, without_processes(spec), 1, layout)
        self._env.close()
        self._space = self._env.env.single_observation_space

    def __call__(self, observation: Any, allowed: np.ndarray | None = None) -> int:
        """Return the action.

        Args:
            observation: As the environment returns it, with the wrappers of its task.
            allowed: Which of the environment's actions the state allows, Booleans [A]; None for
                all.
        """
        empty: Any = create_empty_array(self._space, n=1)
        padded = self._env.padded(concatenate(self._space, [observation], empty))
        seen = torch.from_numpy(padded).unsqueeze(0)
        with torch.no_grad():
            action, _ = self._policy(seen, self._task, self._allowed(allowed))
        return int(action) + self._env.first_action

    def _allowed(self, allowed: np.ndarray | None) -> Tensor:
        mask = np.ones(self._env.layout.num_actions, bool)
        if allowed is not None:
            mask[: len(allowed)] = allowed
        return torch.from_numpy(mask).view(1, 1, -1)
