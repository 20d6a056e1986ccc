"""The clock of a training, and greedy episodes that are off it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from works import MINATAR, Work

Array = np.ndarray
# Actions [N] for observations [N, *O], as the environment gives them, of a task by its number.
Act = Callable[[Array, int], Array]
EVALUATION_SEED = 10_000
STATUS = Path("/proc/self/status")


def peak_megabytes() -> float:
    """Return the largest resident memory that this process has had; Linux alone says it.

    `getrusage` would not do: a process begins with what its parent had when it was started.
    """
    (line,) = (one for one in STATUS.read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


class Stopwatch:
    """Seconds of training, by the clock on the wall and by that of the processor."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        """Go on."""
        assert self._since is None
        self._since = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stand still."""
        wall, cpu = time.perf_counter(), time.process_time()
        assert self._since is not None
        self.wall += wall - self._since[0]
        self.cpu += cpu - self._since[1]
        self._since = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still for a while."""
        self.stop()
        yield
        self.start()


class Goal:
    """Says when a training may end, by greedy episodes that its clock does not count.

    Args:
        work: What to reach.
        stopwatch: The training's.

    Attributes:
        reached: Whether the last evaluation was at the threshold.
        evaluations: How many there were.
    """

    def __init__(self, work: Work, stopwatch: Stopwatch) -> None:
        self._work, self._stopwatch = work, stopwatch
        self._next = work.evaluate_every_env_steps
        self.reached = False
        self.evaluations = 0

    def look(self, env_steps: int, act: Act) -> bool:
        """Evaluate if that is due, and return whether training may end.

        Args:
            env_steps: Made so far.
            act: The policy as it is.
        """
        threshold, every = self._work.threshold, self._work.evaluate_every_env_steps
        if threshold is None or env_steps < self._next:
            return self.reached
        self._next = (env_steps // every + 1) * every
        with self._stopwatch.paused():
            scores = evaluate(self._work, act, EVALUATION_SEED + self.evaluations)
            self.evaluations += 1
            self.reached = min(scores) >= threshold
        return self.reached


def register_environments(work: Work) -> None:
    """Make the ids of a work known to Gymnasium."""
    known = any(env.startswith(MINATAR) for env in gymnasium.registry)
    if work.env_is_minatar and not known:
        import minatar.gym

        minatar.gym.register_envs()


def evaluate(work: Work, act: Act, seed: int) -> list[float]:
    """Return the mean over greedy episodes of what a work measures, for each environment.

    Args:
        work: What is played.
        act: The policy.
        seed: Of the environments' first episodes, of which each copy plays one.
    """
    register_environments(work)
    return [
        _mean(env, work, lambda observation, task=task: act(observation, task), seed)  # type: ignore[misc]
        for task, env in enumerate(work.envs)
    ]


def _mean(env: str, work: Work, act: Callable[[Array], Array], seed: int) -> float:
    envs: Any = gymnasium.make_vec(env, num_envs=work.episodes)
    observation, _ = envs.reset(seed=seed)
    total, playing = np.zeros(work.episodes), np.ones(work.episodes, bool)
    while playing.any():
        observation, reward, terminated, truncated, infos = envs.step(act(observation))
        success = infos.get("success", np.zeros(work.episodes, bool))
        total += playing * (success if work.measure == "success" else reward)
        playing &= ~(terminated | truncated)
    envs.close()
    return float(total.mean())
