"""Many copies of a MinAtar game."""

from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.core import RenderFrame
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from minatar import Environment
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.minatar.rendering import render_frame
from lit_mtdqn.envs.suites.minatar.view import Flip, Planes, View
from lit_mtdqn.types import require

Integers = NDArray[np.integer[Any]]
StepResult = tuple[
    Planes, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
]


class MinAtarVectorEnv(VectorEnv[Planes, Integers, NDArray[Any]]):
    """Plays many copies of a MinAtar game, as a `SyncVectorEnv` of single ones would, but leaner.

    Observations and rewards are the same as there, and copy i of a reset with a seed has seed + i.
    No wrappers lie between, which take up to half of the time of the faster games, and the state
    can be saved. The step after an end ignores the action and starts a new episode, with reward 0.
    Observations are bit planes, [num_envs, 10, 10, channels].

    Args:
        game: `asterix`, `breakout`, `freeway`, `seaquest` or `space_invaders`.
        use_minimal_action_set: Whether actions are those that do something in this game, or all 6.
        num_envs: Number of copies, at least 1.
        max_episode_steps: Frames after which an episode is truncated; None has no limit.
        render_mode: `rgb_array` or None.
        sticky_action_prob: Probability that a copy repeats its last action instead, in [0, 1].
        difficulty_ramping: Whether some games become faster as an episode goes on.
        flip: Whether the picture is mirrored: `horizontal`, `vertical`, `both` or None. Actions,
            rewards and rendered frames stay as they are; so with the next two. They are domains to
            adapt to, which the game's single form does not have.
        zoom: Size of the picture on a screen that stays as large, in (0, 1].
        noise: Probability that a bit is turned over at every frame, in [0, 0.5].

    References:
        Young and Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible
        Reinforcement Learning Experiments", https://arxiv.org/abs/1903.03176.
    """

    def __init__(
        self,
        game: str,
        use_minimal_action_set: bool = False,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        flip: Flip | None = None,
        zoom: float = 1.0,
        noise: float = 0.0,
    ) -> None:
        require(num_envs >= 1, "num_envs", "be at least 1", num_envs)
        limit = max_episode_steps
        require(limit is None or limit >= 1, "max_episode_steps", "be at least 1", limit)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": 10,
            "autoreset_mode": AutoresetMode.NEXT_STEP,
        }
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self._view = View(flip, zoom, noise)
        self._games = [
            Environment(game, sticky_action_prob, difficulty_ramping) for _ in range(num_envs)
        ]
        first = self._games[0]
        minimal = first.minimal_action_set() if use_minimal_action_set else None
        self._actions = np.array(minimal or range(first.num_actions()))
        self.single_action_space = spaces.Discrete(len(self._actions))
        shape = tuple(first.state_shape())
        self.single_observation_space = spaces.Box(0, 1, shape, np.bool_)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._step = np.zeros(num_envs, np.int64)
        # Before the first reset every episode counts as over, so that a step would start it.
        self._over = np.ones(num_envs, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Planes, dict[str, Any]]:
        """Start new episodes everywhere and return their observations.

        Args:
            seed: Seed of the first copy, which each following one counts up, or None to draw on.
            options: Ignored.
        """
        super().reset(seed=seed)
        for place, game in enumerate(self._games):
            if seed is not None:
                game.seed(seed + place)
            game.reset()
        self._step[:] = 0
        self._over = np.zeros(self.num_envs, bool)
        return self._observe(), {}

    def step(self, actions: Integers) -> StepResult:
        """Play all copies for a frame by `actions`, [num_envs].

        Returns:
            Observations, rewards, `terminated`, `truncated`, each [num_envs, ...], and an empty
            `info`; all of them new.
        """
        over = self._over
        reward = np.zeros(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, bool)
        chosen, restarts = self._actions[actions].tolist(), over.tolist()
        for place, game in enumerate(self._games):
            if restarts[place]:
                game.reset()
            else:
                reward[place], terminated[place] = game.act(chosen[place])
        self._step += 1
        self._step[over] = 0
        truncated = np.zeros(self.num_envs, bool)
        if self.max_episode_steps is not None:
            truncated = self._step >= self.max_episode_steps
        self._over = terminated | truncated
        return self._observe(), reward, terminated, truncated, {}

    def render(self) -> tuple[RenderFrame, ...] | None:
        """Return the first copy's frame, (uint8 [320, 320, 3],), or None without `render_mode`."""
        return None if self.render_mode is None else (render_frame(self._games[0].state()),)

    def get_state(self) -> dict[str, Any]:
        """Return a copy of all that `set_state` needs to continue exactly from here."""
        return {
            "games": [_state_of(game) for game in self._games],
            "step": self._step.copy(),
            "over": self._over.copy(),
            "generator": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly from what `get_state` returned for the same `num_envs`."""
        saved = len(state["games"])
        require(saved == self.num_envs, "state", f"hold {self.num_envs} episodes", saved)
        for game, values in zip(self._games, state["games"], strict=True):
            _restore(game, values)
        self._step = state["step"].copy()
        self._over = state["over"].copy()
        self.np_random.bit_generator.state = state["generator"]

    def _observe(self) -> Planes:
        planes = np.stack([game.env.state() for game in self._games])
        return self._view.see(planes, self.np_random)


def _state_of(game: Environment) -> dict[str, Any]:
    """Return plain values: what the game remembers, and its generator's state."""
    memory = {name: value for name, value in vars(game.env).items() if name != "random"}
    return {
        "memory": deepcopy(memory),
        "last_action": game.last_action,
        "generator": game.random.get_state(legacy=False),
    }


def _restore(game: Environment, values: dict[str, Any]) -> None:
    # Before its first seed a game draws from another generator than its wrapper does.
    game.random = game.env.random = np.random.RandomState()
    game.random.set_state(values["generator"])
    game.last_action = values["last_action"]
    vars(game.env).update(deepcopy(values["memory"]))
