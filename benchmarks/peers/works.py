"""What a program is to do, as `works.yaml` has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

WORKS = Path(__file__).with_name("works.yaml")
MINATAR = "MinAtar/"
# Two phases of four runs.
CONFIGURED_SLACK = 1024


@dataclass(frozen=True, kw_only=True)
class Work:
    """Numbers of one training.

    Attributes:
        name: Of the work.
        envs: Ids of the environments; more than one are learned by one network.
        total_env_steps: Env steps, over all environments, after which training ends at the latest.
        config: A configuration of `lit_mtdqn`, which says all that follows but the rule of
            stopping.
        threshold: Mean of `measure`, in every environment, at which training ends; None never.
        measure: Of greedy episodes; None plays none, as where tasks are padded or wrapped.
        episodes: Of one evaluation.
        evaluate_every_env_steps: Between two of them.
        torso: Fully connected layers of widths `hidden`, or MinAtar's convolution and one of these.
        dueling_hidden: Widths of both streams; none for no dueling network.
        double: Whether the online network chooses the action of the target.
        loss: Of the error.
        epsilon_start: Probability of a random action at first.
        epsilon_end: Finally.
        epsilon_env_steps: Env steps in which it falls evenly.
        epsilon_decay: Share by which it falls at every env step instead.
        num_envs: Environments that are stepped together.
        cycle_env_steps: Env steps, over all of them, between two blocks of updates.
        cycle_updates: Updates of a block.
        target_updates: Updates between two copies of the network.
        target_env_steps: Env steps between them, for who counts these.
    """

    name: str
    envs: tuple[str, ...]
    total_env_steps: int
    config: str | None = None
    threshold: float | None = None
    measure: Literal["return", "success"] | None = "return"
    episodes: int = 20
    evaluate_every_env_steps: int = 10_000
    torso: Literal["mlp", "minatar"] = "mlp"
    hidden: tuple[int, ...] = ()
    dueling_hidden: tuple[int, ...] = ()
    double: bool = False
    loss: Literal["huber", "mse"] = "huber"
    lr: float = 0.0
    max_grad_norm: float | None = 10.0
    batch_size: int = 0
    replay_capacity: int = 0
    warmup_env_steps: int = 0
    gamma: float = 0.0
    n_step: int = 1
    epsilon_start: float = 1.0
    epsilon_end: float = 0.0
    epsilon_env_steps: int = 0
    epsilon_decay: float = 0.0
    num_envs: int = 1
    cycle_env_steps: int = 0
    cycle_updates: int = 0
    target_updates: int = 0
    target_env_steps: int = 0

    @property
    def env(self) -> str:
        """The only environment."""
        (env,) = self.envs
        return env

    @property
    def env_is_minatar(self) -> bool:
        """Whether MinAtar's ids must be registered."""
        return any(env.startswith(MINATAR) for env in self.envs)

    @property
    def cycle_vector_steps(self) -> int:
        """Steps of all environments together in a cycle."""
        steps, rest = divmod(self.cycle_env_steps, self.num_envs)
        assert rest == 0, f"{self.num_envs} environments do not make {self.cycle_env_steps} steps"
        return steps

    @property
    def replay_ratio(self) -> float:
        """Updates per env step."""
        return self.cycle_updates / self.cycle_env_steps

    def epsilon(self, env_steps: int) -> float:
        """Return the probability of a random action after so many env steps."""
        start, end = self.epsilon_start, self.epsilon_end
        if self.epsilon_decay:
            return max(start * (1.0 - self.epsilon_decay) ** env_steps, end)
        return end + (start - end) * max(0.0, 1.0 - env_steps / self.epsilon_env_steps)

    def check(self, env_steps: int, updates: int) -> None:
        """Refuse counts that are not those of this work.

        Args:
            env_steps: Env steps that a program has made, by its own count.
            updates: Updates that it has made.

        Raises:
            ValueError: If one is too far away.
        """
        if self.threshold is None:
            slack = 2 * self.cycle_env_steps if self.config is None else CONFIGURED_SLACK
            _require_near("env_steps", env_steps, self.total_env_steps, 0.02, slack)
        if self.config is None:
            expected = max(env_steps - self.warmup_env_steps, 0) * self.replay_ratio
            # Some programs count steps that reset an environment as played when they count updates,
            # which are a tenth of all where episodes take ten steps.
            _require_near("updates", updates, expected, 0.15, 2 * self.cycle_updates)


def _require_near(name: str, found: int, expected: float, share: float, slack: int) -> None:
    if abs(found - expected) > share * expected + slack:
        raise ValueError(f"`{name}` must be near {expected:.0f}. Got {found}.")


def programs_of(name: str) -> list[str]:
    """Return the programs that do a work."""
    return list(_works()[name]["programs"])


def load(name: str, program: str, replaced: Mapping[str, Any]) -> Work:
    """Return a work as one program is to do it.

    Args:
        name: Of the work.
        program: One of `programs_of(name)`.
        replaced: Numbers in place of the file's.

    Raises:
        TypeError: If a number is not one of a work's.
    """
    found = _works()[name]
    given = {**found, **found["programs"][program], **replaced}
    del given["programs"]
    listed = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    return Work(name=name, **{**given, **listed})


@cache
def _works() -> dict[str, dict[str, Any]]:
    works: dict[str, dict[str, Any]] = yaml.safe_load(WORKS.read_text())
    return works
