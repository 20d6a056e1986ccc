"""Building and wrapping environments."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from lit_mtdqn.envs.finding import find_environment
from lit_mtdqn.envs.pools import EnvPoolVectorEnv
from lit_mtdqn.envs.processes import ProcessVectorEnv
from lit_mtdqn.envs.restarting import RestartingEnv
from lit_mtdqn.envs.restarting_processes import RestartingVectorEnv
from lit_mtdqn.types import TaskSpec, require

Env = gymnasium.Env[Any, Any]
Vector = VectorEnv[Any, Any, Any]


def make_single_env(task: str, spec: TaskSpec, **kwargs: Any) -> Env:
    """Build one copy of a task's environment with its wrappers.

    Args:
        task: Name used in complaints.
        spec: The task.
        **kwargs: Arguments that override those of the spec, such as `render_mode`.

    Raises:
        ValueError: If the environment cannot be found, built or wrapped; the message says why.
    """
    source = find_environment(task, spec.env)
    if isinstance(source, EnvSpec):
        # The checker's warnings are for those who write environments.
        make: Callable[..., Any] = partial(
            gymnasium.make,
            source.id,
            max_episode_steps=spec.time_limit,
            disable_env_checker=True,
        )
    else:
        make = source
    env: Env = _build(task, spec, make, {**spec.kwargs, **kwargs})
    if isinstance(env, VectorEnv):
        env.close()
        raise ValueError(
            f"`tasks.{task}.env` must be a single environment where it is wrapped, stepped by "
            f"`backend: sync` or resets itself other than on the next step. Got {spec.env!r}."
        )
    if spec.time_limit is not None and not isinstance(source, EnvSpec):
        env = gymnasium.wrappers.TimeLimit(env, spec.time_limit)
    for wrapper in spec.wrappers:
        env = _wrap(task, env, wrapper)
    return env


def make_vector_env(task: str, spec: TaskSpec, num_envs: int, **kwargs: Any) -> Vector:
    """Build `num_envs` copies that are stepped together and reset themselves on the next step.

    Args:
        task: Name used in complaints.
        spec: The task; its `backend` says how the copies are stepped.
        num_envs: Number of copies.
        **kwargs: Arguments that override those of the spec.

    Raises:
        ValueError: If the environment cannot be found, built or stepped that way.
    """
    one_by_one = spec.backend in ("sync", "async")
    must = "be 0 unless `backend` is sync or async: only single copies are restarted"
    require(one_by_one or spec.restarts == 0, f"tasks.{task}.restarts", must, spec.restarts)
    if spec.backend == "envpool":
        return _make_pool(task, spec, num_envs, kwargs)
    batched = None if one_by_one else _batched_form(task, spec, num_envs, kwargs)
    if batched is not None:
        return batched
    if spec.backend == "vector":
        raise ValueError(
            f"`tasks.{task}.backend` must be sync or auto: {spec.env} has no batched form with "
            "next-step autoreset, or wrappers or a time limit rule it out. Got 'vector'."
        )
    if spec.backend == "async":
        source = find_environment(task, spec.env)
        copy = _restarting(partial(_make_elsewhere, source, task, spec, **kwargs), spec)
        if spec.restarts:
            return RestartingVectorEnv(task, copy, num_envs, spec.step_timeout)
        processes: Vector = ProcessVectorEnv(task, copy, num_envs, spec.step_timeout)
        return processes
    make = _restarting(partial(make_single_env, task, spec, **kwargs), spec)
    env = make()
    rest = [make] * (num_envs - 1)
    return SyncVectorEnv([lambda: env, *rest], autoreset_mode=AutoresetMode.NEXT_STEP)


def without_processes(spec: TaskSpec) -> TaskSpec:
    """Return a task whose copies are stepped in this process, if it would have others for them.

    For a look at a copy, which is not worth the start of a process.
    """
    is_elsewhere = spec.backend == "async"
    return replace(spec, backend="sync", step_timeout=None) if is_elsewhere else spec


def _restarting(make: Callable[[], Env], spec: TaskSpec) -> Callable[[], Env]:
    """Return what makes a copy that goes on after faults, where the task has it so."""
    return partial(RestartingEnv, make, spec.restarts) if spec.restarts else make


def check_device_form(task: str, spec: TaskSpec) -> None:
    """Refuse a task whose environment cannot be kept on a device.

    Args:
        task: Name used in complaints.
        spec: The task.

    Raises:
        ValueError: If it has no batched form that takes a `device`, or something rules that out.
    """
    where, when = f"tasks.{task}", "where `device_resident` is true"
    require(not spec.wrappers, f"{where}.wrappers", f"be empty {when}", spec.wrappers)
    backends = ("auto", "vector")
    must = f"be one of {', '.join(backends)} {when}"
    require(spec.backend in backends, f"{where}.backend", must, spec.backend)
    for name in ("action_mask_key", "cumulants_key"):
        key = getattr(spec, name)
        require(key is None, f"{where}.{name}", f"be null {when}", key)
    make = _batched_maker(find_environment(task, spec.env))
    takes = make is not None and "device" in inspect.signature(make).parameters
    require(takes, f"{where}.env", f"have a batched form that takes a `device` {when}", spec.env)


def _make_elsewhere(source: Any, task: str, spec: TaskSpec, **kwargs: Any) -> Env:
    """Build one copy in a process to which an id may be new."""
    if isinstance(source, EnvSpec):
        gymnasium.registry.setdefault(source.id, source)
    return make_single_env(task, spec, **kwargs)


def _batched_form(
    task: str, spec: TaskSpec, num_envs: int, kwargs: dict[str, Any]
) -> Vector | None:
    """Return the environment's own batched form, or None if it has none that fits."""
    source = find_environment(task, spec.env)
    if spec.wrappers:
        return None
    if isinstance(source, EnvSpec):
        if not _has_batched_form(source, spec.time_limit):
            return None
        make: Callable[..., Any] = partial(
            gymnasium.make_vec, source.id, vectorization_mode="vector_entry_point"
        )
    elif _batched_maker(source) is not None:
        # There are no single copies that a wrapper could limit.
        require(
            spec.time_limit is None or _takes_time_limit(source),
            f"tasks.{task}.time_limit",
            f"be None, because {spec.env} takes no argument `max_episode_steps`",
            spec.time_limit,
        )
        make = source
    else:
        return None
    limit = {} if spec.time_limit is None else {"max_episode_steps": spec.time_limit}
    arguments = {**spec.kwargs, **limit, **kwargs, "num_envs": num_envs}
    env: Vector = _build(task, spec, make, arguments)
    if env.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP:
        return env
    env.close()
    return None


def _has_batched_form(source: EnvSpec, time_limit: int | None) -> bool:
    """Return whether an id has a batched form that keeps to the time limit, its own or the task's.

    Gymnasium limits single copies by a wrapper, but leaves it to a batched form to limit itself.
    """
    make = _batched_maker(source)
    if make is None or source.additional_wrappers:
        return False
    if time_limit is None and source.max_episode_steps is None:
        return True
    return _takes_time_limit(make)


def _batched_maker(source: EnvSpec | Callable[..., Any]) -> Callable[..., Any] | None:
    """Return what makes an environment's batched form, or None if it has none."""
    if not isinstance(source, EnvSpec):
        return source if isinstance(source, type) and issubclass(source, VectorEnv) else None
    entry_point: Any = source.vector_entry_point
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


def _takes_time_limit(make: Callable[..., Any]) -> bool:
    parameters = inspect.signature(make).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_any or "max_episode_steps" in parameters


def _make_pool(task: str, spec: TaskSpec, num_envs: int, kwargs: dict[str, Any]) -> Vector:
    """Return EnvPool's form of an environment, inside the task's wrappers of whole batches."""
    if importlib.util.find_spec("envpool") is None:
        raise ValueError(
            f"`tasks.{task}.backend` must have its packages installed. Got 'envpool': run "
            "`pip install 'lit-mtdqn[envpool]'`."
        )
    limit = {} if spec.time_limit is None else {"max_episode_steps": spec.time_limit}
    arguments = {**spec.kwargs, **limit, **kwargs, "num_envs": num_envs}
    try:
        env: Any = _build(task, spec, partial(EnvPoolVectorEnv, spec.env), arguments)
    except gymnasium.error.NameNotFound as error:
        raise ValueError(
            f"`tasks.{task}.env` must be an id of EnvPool's. Got {spec.env!r}: {error}."
        ) from error
    for wrapper in spec.wrappers:
        env = _wrap(task, env, wrapper, "gymnasium.wrappers.vector")
    pool: Vector = env
    return pool


def _build(task: str, spec: TaskSpec, make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call `make`, turning what users get wrong into one sentence that names the task."""
    where = f"`tasks.{task}.env` must"
    try:
        return make(**arguments)
    except gymnasium.error.DependencyNotInstalled as error:
        extra = " or `pip install 'lit-mtdqn[box2d]'`" if "box2d" in str(error).lower() else ""
        raise ValueError(
            f"{where} have its packages installed. Got {spec.env!r}: {error}{extra}."
        ) from error
    except TypeError as error:
        raise ValueError(
            f"{where} accept its `kwargs`. Got {spec.env!r} with {arguments}: {error}."
        ) from error


def _wrap(
    task: str, env: Any, wrapper: str | dict[str, Any], home: str = "gymnasium.wrappers"
) -> Any:
    entry: dict[str, Any] = {"class_path": wrapper} if isinstance(wrapper, str) else wrapper
    path = str(entry.get("class_path", ""))
    module, _, name = path.rpartition(".")
    try:
        wrap = getattr(importlib.import_module(module or home), name)
        return wrap(env, **entry.get("init_args", {}))
    except Exception as error:  # a wrapper may raise anything about arguments it does not like
        reason = " ".join(str(error).split())
        raise ValueError(
            f"`tasks.{task}.wrappers` must name wrappers that fit the environment. Got {path!r}: "
            f"{reason}."
        ) from error
