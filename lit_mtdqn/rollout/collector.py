"""The stream of env steps that training lives on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_mtdqn.envs import TaskEnv
from lit_mtdqn.functional.arrays import placed
from lit_mtdqn.functional.packing import packed, unpacked
from lit_mtdqn.rollout.exploration import EpsilonGreedy, ExplorationDraws
from lit_mtdqn.types import (
    PLAIN_COLUMNS,
    ActionValues,
    Array,
    ExploringValues,
    LabelsTransitions,
    StepRow,
)


class Collector:
    """Steps the environments of S tasks side by side, with one forward pass for all of them.

    It knows nothing of replay, learning or logging, and never resets an environment once started.

    Args:
        envs: One vector environment per acting task, of N copies each.
        policy: Acts; it is asked again at every step, so it may be learning meanwhile. Its
            `exploring_values` are preferred to its `action_values`, where it has them.
        task: Index of each acting task among all tasks, [S].
        action_mask: Actions that each acting task has, [S, A].
        exploration: How actions follow from values.
        epsilon: Returns the probabilities of random actions for the next step, [S].
        seeds: Seed of each task's exploration, [S].
        active: Returns which tasks act in the next step, [S]; None for all. The others stand still
            and their rows are not valid.
        labeller: Says what is to be stored with each transition; None for nothing.
        device: Where everything stays as tensors; None for environments of arrays. All tasks act
            there in every step.
    """

    def __init__(
        self,
        envs: Sequence[TaskEnv],
        policy: ActionValues,
        task: Sequence[int],
        action_mask: Array,
        exploration: EpsilonGreedy,
        epsilon: Callable[[], Array],
        seeds: Sequence[int],
        active: Callable[[], Array | None] = lambda: None,
        labeller: LabelsTransitions | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.envs = envs
        self.policy = policy
        self.labeller = labeller
        self.exploration = exploration
        self._device = device
        self._xp: Any = np if device is None else torch
        self._task = torch.tensor(list(task), device=device)
        self._static_mask = placed(action_mask[:, None], device)
        self._epsilon = epsilon
        self._active = active
        self._num_envs = envs[0].num_envs
        self._draws = ExplorationDraws(seeds, self._num_envs, device)

    @property
    def device_kind(self) -> str | None:
        """On what kind of device it draws and acts; None for arrays."""
        return None if self._device is None else self._device.type

    @property
    def policy(self) -> ActionValues:
        """What acts."""
        return self._policy

    @policy.setter
    def policy(self, policy: ActionValues) -> None:
        self._policy = policy
        self._values = policy.action_values
        if isinstance(policy, ExploringValues):
            self._values = policy.exploring_values

    def steps(self, seeds: Sequence[int]) -> Iterator[StepRow]:
        """Reset every environment once, then yield vector steps, arrays [S, N, ...], for ever.

        Environments whose state `load_state_dict` has restored go on without a reset.

        Args:
            seeds: Seed of each task's environments.
        """
        starts = [env.start(seed) for env, seed in zip(self.envs, seeds, strict=True)]
        observation = self._joined([observation for observation, _ in starts])
        mask = self._stack_masks([mask for _, mask in starts])
        while True:
            active = self._active()
            action = self._act(observation, mask, active)
            row = self._stack(self._step(action, active), mask)
            if self.labeller is not None:
                labels = self._labels_of(self.labeller, observation, active)
                row = row._replace(extra={**row.extra, **labels})
            yield row
            observation, mask = row.next_observation, row.next_action_mask

    def state_dict(self) -> dict[str, Any]:
        """Return where draws and environments stand, as checkpoints hold it.

        Of environments that cannot restore their state, or whose state is not plain, it has none.
        """
        return {
            "draws": packed(self._draws.state_dict()),
            "envs": [_plain_state(env) for env in self.envs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> Array:
        """Draw on from a saved state, and let environments go on, before `steps` starts anew.

        Returns:
            Which environments go on, Booleans [S].
        """
        self._draws.load_state_dict(unpacked(state["draws"]))
        pairs = zip(self.envs, state["envs"], strict=True)
        return np.array([_goes_on(env, own) for env, own in pairs], bool)

    def reseed(self, seeds: Sequence[int]) -> None:
        """Draw from other seeds, one for each task, from now on."""
        self._draws = ExplorationDraws(seeds, self._num_envs, self._device)

    def _act(self, observation: Array, mask: Array | None, active: Array | None) -> Array:
        epsilon = self._epsilon()
        allowed = self._static_mask if mask is None else mask
        values = None
        if epsilon.min() < 1.0:
            values = self._values_of(observation, active)
        return self.exploration.act(values, allowed, self._beside(epsilon), self._draws())

    def _beside(self, epsilon: np.ndarray) -> Array:
        """Return epsilons where the values are."""
        if self._device is None:
            return epsilon
        # As arguments of kernels, which nothing waits for; a copy would.
        full = partial(torch.full, (), dtype=torch.float64, device=self._device)
        return torch.stack([full(own) for own in epsilon.tolist()])

    def _values_of(self, observation: Array, active: Array | None) -> Array:
        """Return action values [S, N, A]; zeros for tasks that stand still."""
        asked = self._values(*self._acting(observation, active))
        return self._for_all(asked, active)

    def _labels_of(
        self, labeller: LabelsTransitions, observation: Array, active: Array | None
    ) -> dict[str, Array]:
        """Return labels [S, N, ...] by name; zeros for tasks that stand still."""
        found = labeller.labels_of(*self._acting(observation, active))
        return {name: self._for_all(labels, active) for name, labels in found.items()}

    def _acting(self, observation: Array, active: Array | None) -> tuple[Tensor, Tensor]:
        """Return observations and numbers of the tasks that act."""
        if active is None:
            return self._as_tensor(observation), self._task
        return torch.from_numpy(observation[active]), self._task[torch.from_numpy(active)]

    def _as_tensor(self, observation: Array) -> Tensor:
        return torch.from_numpy(observation) if self._device is None else observation

    def _for_all(self, rows: Tensor, active: Array | None) -> Array:
        """Return the rows of acting tasks as those of all S tasks, zeros for the others."""
        found: Array = rows.cpu().numpy() if self._device is None else rows
        if active is None:
            return found
        every = np.zeros((len(active), *found.shape[1:]), found.dtype)
        every[active] = found
        return every

    def _step(self, action: Array, active: Array | None) -> list[StepRow]:
        pairs = list(zip(self.envs, action, strict=True))
        if active is None:
            return [env.step(actions) for env, actions in pairs]
        chosen = zip(pairs, active, strict=True)
        return [env.step(own) if acts else env.idle(own) for (env, own), acts in chosen]

    def _stack(self, rows: list[StepRow], mask: Array | None) -> StepRow:
        plain = (row[PLAIN_COLUMNS] for row in rows)
        columns: list[Any] = [self._joined(column) for column in zip(*plain, strict=True)]
        next_mask = self._stack_masks([row.next_action_mask for row in rows])
        extra = {name: self._joined([row.extra[name] for row in rows]) for name in rows[0].extra}
        return StepRow._make((*columns, mask, next_mask, extra))

    def _joined(self, arrays: Sequence[Array]) -> Array:
        """Return what `stack` would, sooner for small arrays."""
        return self._xp.concatenate(arrays).reshape(len(arrays), *arrays[0].shape)

    def _stack_masks(self, masks: list[Array | None]) -> Array | None:
        """Return [S, N, A], or None if no task has a dynamic mask."""
        if all(mask is None for mask in masks):
            return None
        shape = (self._num_envs, self._static_mask.shape[-1])
        pairs = zip(masks, self._static_mask, strict=True)
        return np.stack([np.broadcast_to(s, shape) if m is None else m for m, s in pairs])


def _plain_state(env: TaskEnv) -> Any:
    """Return an environment's state as checkpoints hold it, or None if that cannot be."""
    try:
        return packed(env.get_state())
    except TypeError:
        return None


def _goes_on(env: TaskEnv, state: Any) -> bool:
    """Return whether an environment goes on from a saved state."""
    if state is None:
        return False
    try:
        env.set_state(unpacked(state))
    except Exception:  # A user's environment may raise anything about a state it does not like.
        return False
    return True
