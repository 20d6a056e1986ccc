"""The one vector contract: a task's environments as a stream of rows."""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from lit_mtdqn.envs.layout import Layout, checked_action_space
from lit_mtdqn.envs.making import make_vector_env
from lit_mtdqn.envs.observations import adapter_for
from lit_mtdqn.envs.restarting import FAULT
from lit_mtdqn.envs.state_keeping import state_keeper
from lit_mtdqn.types import Array, StepRow, TaskSpec

logger = logging.getLogger(__name__)


class TaskEnv:
    """N copies of one task's environment, stepped together, padded to the run's layout.

    Rows follow Gymnasium's next-step autoreset: after an episode's last row, which holds its real
    final observation, comes a reset row that is no transition (`valid` false) and whose action is
    ignored. A step that a fault has taken, where the task has `restarts`, is truncated and not
    valid, and a reset row follows: what waits for it ends at the observation before it.

    Args:
        task: Name of the task.
        spec: The task.
        num_envs: N.
        layout: Padded shapes of the run.
        **kwargs: Arguments for the environment that override those of the spec.
    """

    def __init__(
        self, task: str, spec: TaskSpec, num_envs: int, layout: Layout, **kwargs: Any
    ) -> None:
        self.task = task
        self.spec = spec
        self.num_envs = num_envs
        self.layout = layout
        self.env = make_vector_env(task, spec, num_envs, **kwargs)
        self._action_space: spaces.Discrete = checked_action_space(
            self.env.single_action_space, task
        )
        self._start = int(self._action_space.start)
        self._adapter = adapter_for(self.env.single_observation_space, task)
        self._static_mask = layout.action_mask(int(self._action_space.n))
        self._xp: Any = np
        self._ended: Array = np.zeros(num_envs, bool)
        self._observation = layout.empty_observation(num_envs)
        self._mask: Array | None = None
        self._no_cumulants: dict[str, Array] = {}
        self._goes_on = False
        self._faults = 0

    @property
    def first_action(self) -> int:
        """What the environment calls action 0."""
        return self._start

    @property
    def observation_parts(self) -> tuple[dict[str, Any], ...]:
        """How raw observations are converted, as `ObservationAdapter.parts`."""
        return self._adapter.parts

    @property
    def steps_single_copies(self) -> bool:
        """Whether each copy costs time or a process of its own."""
        return isinstance(self.env.unwrapped, SyncVectorEnv | AsyncVectorEnv)

    def start(self, seed: int | None = None) -> tuple[Array, Array | None]:
        """Return observations and masks as `reset` does; episodes set by `set_state` go on."""
        if not self._goes_on:
            return self.reset(seed)
        self._goes_on = False
        return self._observation, self._mask

    def reset(self, seed: int | None = None) -> tuple[Array, Array | None]:
        """Start an episode in every copy; return observations [N, *O] and, if dynamic, masks."""
        try:
            raw, infos = self.env.reset(seed=seed)
        except Exception as error:
            self._sign(error)
            raise
        self._goes_on = False
        self._ended[:] = False
        self._count_faults(infos)
        self._observation = self.padded(raw)
        self._mask = self._action_mask(infos)
        self._no_cumulants = self._cumulants(infos, self._ended)
        return self._observation, self._mask

    def step(self, action: Array) -> StepRow:
        """Step every copy by its action, integers [N] counted from 0."""
        chosen = action + self._start if self._start else action
        try:
            raw, reward, terminated, truncated, infos = self.env.step(chosen)
        except Exception as error:
            self._sign(error)
            raise
        valid, both = ~self._ended, self._xp.logical_and
        cut = self._cut(infos, truncated) if self.spec.restarts else None
        if cut is not None:
            valid = valid & ~cut
        terminated, truncated = both(terminated, valid), both(truncated, valid)
        if cut is not None:
            truncated = truncated | cut
        ended = terminated | truncated
        following = self.padded(raw)
        if cut is not None:
            # What a broken environment shows may be anything.
            following[cut] = self._observation[cut]
        row = StepRow(
            observation=self._observation,
            action=action,
            reward=self._where_valid(reward, valid),
            terminated=terminated,
            truncated=truncated,
            next_observation=following,
            valid=valid,
            action_mask=self._mask,
            next_action_mask=self._action_mask(infos),
            extra={"success": self._success(infos, ended), **self._cumulants(infos, valid)},
        )
        self._observation, self._mask, self._ended = (
            row.next_observation,
            row.next_action_mask,
            ended,
        )
        return row

    def idle(self, action: Array) -> StepRow:
        """Return a row in which nothing happens and no time passes; no copy is stepped."""
        nothing = np.zeros(self.num_envs, bool)
        return StepRow(
            observation=self._observation,
            action=action,
            reward=np.zeros(self.num_envs, np.float32),
            terminated=nothing,
            truncated=nothing,
            next_observation=self._observation,
            valid=nothing,
            action_mask=self._mask,
            next_action_mask=self._mask,
            extra={"success": nothing, **self._no_cumulants},
        )

    def get_state(self) -> dict[str, Any] | None:
        """Return a state that `set_state` continues from exactly, or None if that is impossible."""
        keeper = state_keeper(self.env)
        if keeper is None:
            return None
        own = {
            "observation": self._observation,
            "ended": self._ended,
            "mask": self._mask,
            "no_cumulants": self._no_cumulants,
        }
        return {**deepcopy(own), "env": keeper.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned, at the next `step` or `start`."""
        keeper = state_keeper(self.env)
        assert keeper is not None
        keeper.set_state(state["env"])
        self._observation = deepcopy(state["observation"])
        self._ended = deepcopy(state["ended"])
        self._mask = deepcopy(state["mask"])
        self._no_cumulants = deepcopy(state["no_cumulants"])
        self._goes_on = True

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def _sign(self, error: Exception) -> None:
        """Let an error of the environment say whose it is, if it does not."""
        if f"`tasks.{self.task}." not in str(error):
            error.add_note(f"This was an environment of task {self.task}.")

    def _cut(self, infos: dict[str, Any], truncated: Array) -> Array | None:
        """Return which copies have made no step because of a fault, [N]; None if none."""
        faulty = self._count_faults(infos)
        return None if faulty is None else faulty & truncated

    def _count_faults(self, infos: dict[str, Any]) -> Array | None:
        """Return which copies have had a fault, [N]; None if none.

        Raises:
            RuntimeError: If the task has had more faults than it has restarts.
        """
        if FAULT not in infos:
            return None
        faults = [found for found in infos[FAULT] if found]
        self._faults += sum(count for count, _ in faults)
        last = faults[-1][1]
        left = self.spec.restarts - self._faults
        if left < 0:
            raise RuntimeError(
                f"Task {self.task} has failed {self._faults} times, with `restarts` = "
                f"{self.spec.restarts}. Its last fault:\n{last}"
            )
        reason = last.strip().splitlines()[-1]
        logger.warning("Task %s: restarted after %s; %d restarts left.", self.task, reason, left)
        return np.array([bool(found) for found in infos[FAULT]])

    def _where_valid(self, reward: Array, valid: Array) -> Array:
        # Not a product: what is returned for a reset may be no number, and times 0 none, either.
        return np.where(valid, reward, 0.0).astype(np.float32)

    def padded(self, raw: Any) -> Array:
        """Return raw observations of all copies as the learner sees them, [N, *O]."""
        observation = self._adapter.convert(raw)
        if observation.shape[1:] == self.layout.observation_shape:
            return np.array(observation, dtype=self.layout.dtype)
        padded = self.layout.empty_observation(self.num_envs)
        padded[:, : observation.shape[1]] = observation
        return padded

    def _action_mask(self, infos: dict[str, Any]) -> Array | None:
        key = self.spec.action_mask_key
        if key is None:
            return None
        mask = np.tile(self._static_mask, (self.num_envs, 1))
        if key not in infos:
            raise ValueError(
                f"`tasks.{self.task}.action_mask_key` must be a key of `info` at every reset and "
                f"step. Got {key!r}; `info` holds {sorted(infos)}."
            )
        found = np.stack([np.asarray(row, bool) for row in infos[key]])
        mask[:, : found.shape[1]] &= found
        return mask

    def _cumulants(self, infos: dict[str, Any], valid: Array) -> dict[str, Array]:
        """Return what a step has brought of that which the task accumulates, [N, D], if anything.

        Zeros in copies that have made no step.
        """
        key = self.spec.cumulants_key
        if key is None:
            return {}
        if key not in infos:
            raise ValueError(
                f"`tasks.{self.task}.cumulants_key` must be a key of `info` at every reset and "
                f"step. Got {key!r}; `info` holds {sorted(infos)}."
            )
        found = np.stack([np.asarray(row, np.float32) for row in infos[key]])
        return {"cumulants": found.reshape(self.num_envs, -1) * valid[:, None]}

    def _success(self, infos: dict[str, Any], ended: Array) -> Array:
        key = self.spec.success_key
        if key is None or not ended.any():
            return np.zeros(self.num_envs, bool)
        if key not in infos:
            raise ValueError(
                f"`tasks.{self.task}.success_key` must be a key of `info` at an episode's end. "
                f"Got {key!r}; `info` holds {sorted(infos)}."
            )
        success: Array = np.asarray(infos[key], bool) & ended
        return success
