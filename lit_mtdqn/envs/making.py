"""Finding, building and wrapping environments."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from lit_mtdqn.types import TaskSpec

Env = gymnasium.Env[Any, Any]
Vector = VectorEnv[Any, Any, Any]

# Packages that register their ids only on request: id prefix, (module, function or None, extra).
PLUGINS = {
    "MinAtar/": ("minatar.gym", "register_envs", "minatar"),
    "lit_mtdqn/": ("lit_mtdqn.envs.suites", None, "dev"),
}


def make_single_env(task: str, spec: TaskSpec, **kwargs: Any) -> Env:
    """Build one copy of a task's environment with its wrappers.

    Args:
        task: Name used in complaints.
        spec: The task.
        **kwargs: Arguments that override those of the spec, such as `render_mode`.

    Raises:
        ValueError: If the environment cannot be found, built or wrapped; the message says why.
    """
    factory = _import_factory(task, spec)
    arguments = {**spec.kwargs, **kwargs}
    if factory is None:
        make = partial(gymnasium.make, spec.env, max_episode_steps=spec.time_limit)
        env: Env = _guarded(task, spec, make, arguments)
    else:
        env = _guarded(task, spec, factory, arguments)
        if spec.time_limit is not None:
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
    batched = None if spec.backend == "sync" else _batched_form(task, spec, num_envs, kwargs)
    if batched is not None:
        return batched
    if spec.backend == "vector":
        raise ValueError(
            f"`tasks.{task}.backend` must be sync or auto: {spec.env} has no batched form with "
            "next-step autoreset, or wrappers rule it out. Got 'vector'."
        )
    env = make_single_env(task, spec, **kwargs)
    rest = [partial(make_single_env, task, spec, **kwargs) for _ in range(num_envs - 1)]
    return SyncVectorEnv([lambda: env, *rest], autoreset_mode=AutoresetMode.NEXT_STEP)


def _batched_form(
    task: str, spec: TaskSpec, num_envs: int, kwargs: dict[str, Any]
) -> Vector | None:
    if spec.wrappers:
        return None
    factory = _import_factory(task, spec)
    arguments = {**spec.kwargs, **kwargs}
    if spec.time_limit is not None:
        arguments["max_episode_steps"] = spec.time_limit
    if factory is not None:
        is_batched = isinstance(factory, type) and issubclass(factory, VectorEnv)
        make: Callable[..., Any] = factory
    else:
        _guarded(task, spec, _import_id, {"env_id": spec.env})
        entry = _guarded(task, spec, gymnasium.spec, {"env_id": spec.env})
        is_batched = entry.vector_entry_point is not None and not entry.additional_wrappers
        make = partial(gymnasium.make_vec, spec.env, vectorization_mode="vector_entry_point")
    if not is_batched:
        return None
    env: Vector = _guarded(task, spec, partial(make, num_envs=num_envs), arguments)
    if env.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP:
        return env
    env.close()
    return None


def _import_factory(task: str, spec: TaskSpec) -> Callable[..., Any] | None:
    """Return what an import path names, or None if `env` is a Gymnasium id."""
    path = spec.env
    if path in gymnasium.registry:
        return None
    module, separator, name = path.rpartition(":" if ":" in path else ".")
    if not separator or "/" in module or not name.isidentifier():
        return None
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(
            f"`tasks.{task}.env` must be importable. Got {path!r}: {error}."
        ) from error
    if found is None or not callable(found):
        raise ValueError(
            f"`tasks.{task}.env` must name something callable. Got {path!r}: module {module} has "
            f"no such {name}."
        )
    return found  # type: ignore[no-any-return]


def _import_id(env_id: str) -> None:
    """Register the ids of a package that does so only on request."""
    for prefix, (module, function, extra) in PLUGINS.items():
        if env_id.startswith(prefix) and env_id not in gymnasium.registry:
            if importlib.util.find_spec(module.split(".")[0]) is None:
                raise gymnasium.error.DependencyNotInstalled(
                    f"install it with `pip install 'lit-mtdqn[{extra}]'`"
                )
            imported = importlib.import_module(module)
            if function is not None:
                getattr(imported, function)()


def _guarded(task: str, spec: TaskSpec, make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call `make`, turning what users get wrong into one sentence that names the task."""
    where = f"`tasks.{task}.env` must"
    try:
        if make is not _import_id:
            _import_id(spec.env)
        return make(**arguments)
    except (gymnasium.error.UnregisteredEnv, gymnasium.error.DeprecatedEnv) as error:
        raise ValueError(
            f"{where} be a registered id or an import path. Got {spec.env!r}: {error}"
        ) from error
    except gymnasium.error.DependencyNotInstalled as error:
        extra = " or `pip install 'lit-mtdqn[box2d]'`" if "box2d" in str(error).lower() else ""
        raise ValueError(
            f"{where} have its packages installed. Got {spec.env!r}: {error}{extra}."
        ) from error
    except TypeError as error:
        raise ValueError(
            f"{where} accept its `kwargs`. Got {spec.env!r} with {arguments}: {error}."
        ) from error


def _wrap(task: str, env: Env, wrapper: str | dict[str, Any]) -> Env:
    entry: dict[str, Any] = {"class_path": wrapper} if isinstance(wrapper, str) else wrapper
    path = str(entry.get("class_path", ""))
    module, _, name = path.rpartition(".")
    try:
        wrap = getattr(importlib.import_module(module or "gymnasium.wrappers"), name)
        wrapped = wrap(env, **entry.get("init_args", {}))
    except (ImportError, AttributeError, TypeError, AssertionError) as error:
        raise ValueError(
            f"`tasks.{task}.wrappers` must name wrappers that fit the environment. Got {path!r}: "
            f"{error}."
        ) from error
    return wrapped  # type: ignore[no-any-return]
