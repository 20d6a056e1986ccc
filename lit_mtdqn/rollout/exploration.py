"""Which action to take, given action values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lit_mtdqn.functional.arrays import cast, namespace_of
from lit_mtdqn.functional.draws import TensorGenerator
from lit_mtdqn.types import Array, Schedule, value_at


class EpsilonGreedy:
    """Takes the greedy action, or with probability epsilon a random allowed one.

    Every environment draws for itself at every step.

    Args:
        epsilon: Probability, or a schedule of it over the task's own env steps.
        warmup: Probability until a task has played the env steps of its warm-up.
    """

    def __init__(self, epsilon: float | Schedule = 0.05, warmup: float = 1.0) -> None:
        self.epsilon, self.warmup = epsilon, warmup

    def epsilon_at(self, env_steps: int, warmup_env_steps: int = 0) -> float:
        """Return a task's epsilon after so many of its env steps."""
        return self.warmup if env_steps < warmup_env_steps else value_at(self.epsilon, env_steps)

    def act(self, q_values: Array | None, mask: Array, epsilon: Array, draws: Array) -> Array:
        """Return actions [S, N]; what differs between explorations, with the arguments of `select`.

        Of the draws, the first decide whether to take any allowed action.
        """
        return self.select(q_values, mask, epsilon, draws)

    @staticmethod
    def select(q_values: Array | None, mask: Array, epsilon: Array, draws: Array) -> Array:
        """Return actions [S, N].

        Args:
            q_values: [S, N, A]; may be None if every epsilon is 1.
            mask: Allowed actions, [S, N, A] or [S, 1, A].
            epsilon: Probability of a random action by task, [S].
            draws: Uniform numbers in [0, 1), [2, S, N]: whether to explore, and which action.
        """
        xp = namespace_of(draws)
        coin, choice = draws
        # To look at a tensor's mask would wait for its device.
        masked = xp is torch or not mask.all()
        explored = cast(choice * (mask.sum(-1) if masked else mask.shape[-1]), "int64")
        if masked:
            explored = (mask.cumsum(-1) <= explored[..., None]).sum(-1)
        if q_values is None:
            return explored
        values = xp.where(mask, q_values, -np.inf) if masked else q_values
        return xp.where(coin < epsilon[:, None], explored, values.argmax(-1))


class ExplorationDraws:
    """Uniform numbers for the actions of S tasks.

    Each task draws from a generator of its own, so that adding a task changes no random action of
    the others.

    Args:
        seeds: Seed of each task.
        num_envs: N.
        device: Where they are drawn, as tensors; None draws arrays.
    """

    # Steps drawn at a time, because a call of a generator takes as long as a hundred numbers.
    BLOCK = 64

    def __init__(
        self, seeds: Sequence[int], num_envs: int, device: torch.device | None = None
    ) -> None:
        self._generators: list[Any] = [
            np.random.default_rng(seed) if device is None else TensorGenerator(seed, device)
            for seed in seeds
        ]
        self._shape = (self.BLOCK, 2, num_envs)
        self._block: Array = ()
        # What the generators were before that block.
        self._before = self._states()
        self._next = 0

    def __call__(self) -> Array:
        """Return the numbers of the next step, [2, S, N]."""
        if self._next == len(self._block):
            self._draw()
        self._next += 1
        return self._block[self._next - 1]

    def state_dict(self) -> dict[str, Any]:
        """Return where the draws of each task stand."""
        return {"generators": self._before, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Draw on from a saved state."""
        for generator, before in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = before
        self._draw()
        self._next = state["next"]

    def _draw(self) -> None:
        self._before = self._states()
        drawn = [generator.random(self._shape) for generator in self._generators]
        self._block, self._next = namespace_of(drawn[0]).stack(drawn, 2), 0

    def _states(self) -> list[Any]:
        return [generator.bit_generator.state for generator in self._generators]
