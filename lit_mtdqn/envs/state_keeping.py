"""Environments that continue exactly from where they were."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import VectorEnv


@runtime_checkable
class KeepsState(Protocol):
    """A batched environment that can be continued in another process; for exact resuming."""

    def get_state(self) -> dict[str, Any]:
        """Return a copy of all that `set_state` needs: dictionaries, lists, arrays, numbers."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly from what `get_state` returned for as many copies."""


class _CartPoleKeeper:
    """Keeps the state of Gymnasium's own batched CartPole, all of which its attributes show.

    Args:
        env: The environment.
    """

    ARRAYS = ("state", "steps", "prev_done")

    def __init__(self, env: CartPoleVectorEnv) -> None:
        self._env: Any = env

    def get_state(self) -> dict[str, Any]:
        """Return a copy of the state."""
        arrays = {name: getattr(self._env, name).copy() for name in self.ARRAYS}
        return {**arrays, "generator": self._env.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        for name in self.ARRAYS:
            setattr(self._env, name, state[name].copy())
        self._env.np_random.bit_generator.state = state["generator"]


def state_keeper(env: VectorEnv[Any, Any, Any]) -> KeepsState | None:
    """Return what saves and restores an environment's state, or None if nothing can."""
    plain = env.unwrapped
    if isinstance(plain, KeepsState):
        return plain
    return _CartPoleKeeper(plain) if type(plain) is CartPoleVectorEnv else None
