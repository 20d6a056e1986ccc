"""What a task is: as its user states it, and as the learner sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from lit_mtdqn.types.checks import require

Backend = Literal["auto", "vector", "sync", "async", "envpool"]


# What of a task says what its stored transitions mean.
MEANING = ("gamma", "n_step", "reward_clip", "cumulants_key")


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task: where its environment comes from and how it is learned.

    Args:
        env: Gymnasium id (`CartPole-v1`, `my_package:MyEnv-v0`) or import path of an environment
            class or factory (`my_package.envs:make_env`).
        backend: How copies of the environment are stepped. `vector` is the environment's own
            batched form, `sync` steps single copies in a loop, `auto` takes the first of these that
            exists. `async` steps each copy in a process of its own, and evaluation up to 32 more,
            which pays where one step takes milliseconds; a script needs
            `if __name__ == "__main__":` then. `envpool` takes the id from EnvPool, whose batches
            are written in C++.
        kwargs: Arguments of the environment.
        wrappers: Gymnasium wrappers around each single copy, innermost first: class paths, or
            mappings with `class_path` and `init_args`. They rule out the batched form. With
            `backend: envpool` they are wrappers of whole batches, `gymnasium.wrappers.vector`.
        gamma: Discount per env step, in [0, 1]. Larger looks further ahead.
        n_step: Rewards folded into one transition, at least 1. Larger carries reward back faster,
            with more variance and more of the old policy in it.
        restarts: How often in a training run a copy of the environment is built anew that raises an
            error, returns what is no number or of another shape, hangs or dies. Its step is
            dropped, its episode cut off, and the others go on; the next fault ends the run with its
            traceback. 0, the default, ends it at the first one: most faults are mistakes, and each
            restart takes what follows them out of the data. For simulators that are known to fail
            now and then; it needs `backend: sync` or `async`, and evaluation has none.
        step_timeout: Seconds that a step may take, with `backend: async`, before its copy counts as
            hanging. It is replaced where the task has `restarts`; else the run ends. Starts of a
            copy, and steps of an evaluation, which restarts none, have at least 60 seconds. None
            waits for ever.
        time_limit: Env steps after which an episode is truncated; None keeps the environment's own
            limit.
        reward_clip: Bounds of each single reward as the learner sees it, as (low, high); episode
            returns stay raw. None does not clip, as tasks with a `cumulants_key` must not.
        weight: Factor on the task's loss, above 0; 1 is neutral.
        score_range: Returns of a random and of a reference policy; they map to scores 0 and 1. None
            takes the success rate as score where the task reports it, the raw return otherwise.
        success_key: Key of `info` that says at an episode's end whether it succeeded, or None.
        action_mask_key: Key of `info` with the actions that are allowed now, or None if all always
            are.
        cumulants_key: Key of `info`, at every reset and step, with the numbers of which the reward
            is a weighted sum, for successor features; None keeps none. All tasks that act or learn
            have them, as many each, or none has.
        acts: Whether the task is played during training.
        learns: Whether its transitions are learned from. A task that acts and does not learn is a
            domain without rewards: objectives that ask for its observations have them in every
            update; its rewards are logged and reach nothing else.
        evaluates: Whether evaluation plays it.
        head: Name of the head it uses; None is a head of its own.
        replay: Folder of a stored replay to learn from; such a task does not act. None acts.

    Raises:
        ValueError: If a value is out of its range.
    """

    env: str
    backend: Backend = "auto"
    kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: list[str | dict[str, Any]] = field(default_factory=list)
    gamma: float = 0.99
    n_step: int = 1
    restarts: int = 0
    step_timeout: float | None = None
    time_limit: int | None = None
    reward_clip: tuple[float, float] | None = None
    weight: float = 1.0
    score_range: tuple[float, float] | None = None
    success_key: str | None = None
    action_mask_key: str | None = None
    cumulants_key: str | None = None
    acts: bool = True
    learns: bool = True
    evaluates: bool = True
    head: str | None = None
    replay: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.env), "env", "be a Gymnasium id or an import path", self.env)
        require(
            self.backend in get_args(Backend),
            "backend",
            f"be one of {', '.join(get_args(Backend))}",
            self.backend,
        )
        require(0.0 <= self.gamma <= 1.0, "gamma", "lie in [0, 1]", self.gamma)
        require(self.n_step >= 1, "n_step", "be at least 1", self.n_step)
        require(self.weight > 0.0, "weight", "be above 0", self.weight)
        require(self.restarts >= 0, "restarts", "be at least 0", self.restarts)
        patience = self.step_timeout
        must = "be above 0 seconds, with `backend: async`, or null"
        fits = patience is None or (patience > 0.0 and self.backend == "async")
        require(fits, "step_timeout", must, patience)
        limit = self.time_limit
        require(limit is None or limit >= 1, "time_limit", "be at least 1 env step", limit)
        _require_ordered("reward_clip", self.reward_clip)
        must = "be null beside `cumulants_key`: clipped rewards are no weighted sums of cumulants"
        is_sum = self.reward_clip is None or self.cumulants_key is None
        require(is_sum, "reward_clip", must, self.reward_clip)
        if self.score_range is not None:
            random, reference = self.score_range
            require(random != reference, "score_range", "hold two unlike returns", self.score_range)
        head = self.head
        require(head is None or head.isidentifier(), "head", "be an identifier", head)


def as_task_specs(tasks: Mapping[str, TaskSpec | Mapping[str, Any]]) -> dict[str, TaskSpec]:
    """Return the tasks as `TaskSpec`.

    Args:
        tasks: Specs, or plain mappings of their fields, by task name.

    Raises:
        TypeError: If a task is neither.
        ValueError: If a mapping lacks `env`, holds an unknown key or a value out of range.
    """
    return {name: _as_task_spec(name, task) for name, task in tasks.items()}


def _as_task_spec(name: str, task: TaskSpec | Mapping[str, Any]) -> TaskSpec:
    if isinstance(task, TaskSpec):
        return task
    if not isinstance(task, Mapping):
        raise TypeError(
            f"`tasks.{name}` must be a TaskSpec or a mapping of its fields. Got {task!r}."
        )
    known = [field.name for field in fields(TaskSpec)]
    for key in task:
        require(key in known, f"tasks.{name}", f"have no key but {', '.join(known)}", key)
    require("env" in task, f"tasks.{name}", "have a key env", dict(task))
    return TaskSpec(**task)


def _require_ordered(name: str, bounds: tuple[float, float] | None) -> None:
    require(bounds is None or bounds[0] < bounds[1], name, "be (low, high) with low < high", bounds)


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What the learner knows of a task; found by probing its environment.

    Args:
        name: The task's key, an identifier; it names heads and metrics.
        observation_shape: Shape of one observation after padding, the same in every task of a run:
            (size,) for vectors, (channels, height, width) for images.
        observation_kind: `vector` (float32) or `image` (uint8).
        observation_high: Largest value of an image, by which a torso divides it: 255 for pictures,
            1 for bit planes.
        own_shape: Shape of the task's own observations, before padding; None where it is not known.
        num_actions: The task's own number of actions, before padding.
        head: Name of the head that it uses.
        learns: Whether its transitions are learned from.
        weight: Factor on its loss.
        score_range: Returns that map to scores 0 and 1, or None.
    """

    name: str
    observation_shape: tuple[int, ...]
    num_actions: int
    own_shape: tuple[int, ...] | None = None
    observation_kind: Literal["vector", "image"] = "vector"
    observation_high: float = 1.0
    head: str = ""
    learns: bool = True
    weight: float = 1.0
    score_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        require(self.name.isidentifier(), "task name", "be an identifier", self.name)
        reserved = ("mean", "worst", "held_out")
        require(self.name not in reserved, "task name", "be no name of a score", self.name)
        head = self.head or self.name
        require(head.isidentifier(), "head", "be an identifier", head)
        kinds = ("vector", "image")
        kind = self.observation_kind
        require(kind in kinds, "observation_kind", "be vector or image", kind)
        require(self.weight > 0.0, "weight", "be above 0", self.weight)
        require(self.num_actions >= 1, "num_actions", "be at least 1", self.num_actions)
        object.__setattr__(self, "observation_shape", tuple(self.observation_shape))
        if self.own_shape is not None:
            object.__setattr__(self, "own_shape", tuple(self.own_shape))
        object.__setattr__(self, "head", head)
        if self.score_range is not None:
            object.__setattr__(self, "score_range", tuple(self.score_range))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as checkpoints and configuration files hold them."""
        return asdict(self)


# Infos, or plain mappings of their fields, as checkpoints and configuration files hold them.
TaskInfos = Sequence[TaskInfo | Mapping[str, Any]]


def as_task_infos(tasks: TaskInfos) -> list[TaskInfo]:
    """Return the tasks as `TaskInfo`, checked against one another.

    Args:
        tasks: Infos, or plain mappings of their fields.

    Raises:
        ValueError: If there is no task, a name occurs twice, or observation shapes differ.
    """
    infos = [task if isinstance(task, TaskInfo) else TaskInfo(**task) for task in tasks]
    require(len(infos) >= 1, "tasks", "hold at least one task", infos)
    names = [info.name for info in infos]
    require(len(set(names)) == len(names), "tasks", "have unlike names", names)
    shapes = {info.observation_shape for info in infos}
    require(len(shapes) == 1, "tasks", "share one padded observation shape", sorted(shapes))
    return infos
