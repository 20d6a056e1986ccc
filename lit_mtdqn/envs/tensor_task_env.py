"""The vector contract on a device."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad

from lit_mtdqn.envs.layout import Layout
from lit_mtdqn.envs.task_env import TaskEnv
from lit_mtdqn.types import Array, StepRow, TaskSpec


class TensorTaskEnv(TaskEnv):
    """N copies of an environment that keeps them as tensors; its rows stay on the device.

    Args:
        task: Name of the task.
        spec: The task, without a dynamic action mask and cumulants; its environment's batched form
            takes a `device`.
        num_envs: N.
        layout: Padded shapes of the run, of vectors.
        device: Where the copies are kept.
    """

    def __init__(
        self, task: str, spec: TaskSpec, num_envs: int, layout: Layout, device: torch.device
    ) -> None:
        super().__init__(task, spec, num_envs, layout, device=device)
        self._xp = torch
        self._ended = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def idle(self, action: Array) -> StepRow:
        """Refuse: on a device all tasks act."""
        raise NotImplementedError("On a device all tasks act in every vector step.")

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned, wherever its tensors are now."""
        device = self._ended.device
        own = {name: value for name, value in state.items() if name != "env"}
        moved = {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in own.items()}
        super().set_state({**moved, "env": state["env"]})

    def _where_valid(self, reward: Array, valid: Array) -> Array:
        return reward * valid

    def padded(self, raw: Array) -> Array:
        """Return raw observations of all copies as the learner sees them, [N, *O]."""
        return pad(raw, (0, self.layout.observation_shape[0] - raw.shape[1]))

    def _success(self, infos: dict[str, Any], ended: Array) -> Array:
        key = self.spec.success_key
        return torch.zeros_like(ended) if key is None else infos[key] & ended
