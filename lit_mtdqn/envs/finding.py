"""From an id or an import path to what builds an environment."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import EnvSpec


class Plugin(NamedTuple):
    """What registers ids only on request.

    Attributes:
        package: The package that must be installed.
        module: Where the function is that registers its ids.
        function: Its name.
        extra: Our extra that installs the package.
    """

    package: str
    module: str
    function: str
    extra: str


# By the prefix of their ids.
PLUGINS = {
    "MinAtar/": Plugin("minatar", "lit_mtdqn.envs.suites.minatar", "register_envs", "minatar"),
}


def find_environment(task: str, env: str) -> EnvSpec | Callable[..., Any]:
    """Return what an id or an import path names.

    Args:
        task: Name used in complaints.
        env: `CartPole-v1`, `my_package:MyEnv-v0`, `my_package.envs:make_env` or
            `my_package.envs.MyEnv`.

    Raises:
        ValueError: If there is no such id, or nothing callable at that path.
    """
    if env in gymnasium.registry:
        return gymnasium.spec(env)
    module, colon, name = env.partition(":")
    if colon or ("." in env and "/" not in env):
        module, name = (module, name) if colon else env.rsplit(".", 1)
        imported = _import(task, env, module)
        if callable(found := getattr(imported, name, None)):
            return found  # type: ignore[no-any-return]
        if name.isidentifier():
            raise ValueError(
                f"`tasks.{task}.env` must name something callable. Got {env!r}: module {module} "
                f"has no such {name}."
            )
        return _registered(task, env, name)
    _import_plugin(task, env)
    return _registered(task, env, env)


def _import(task: str, env: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"`tasks.{task}.env` must be importable. Got {env!r}: {error}.") from error


def _registered(task: str, env: str, env_id: str) -> EnvSpec:
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"`tasks.{task}.env` must be a registered id or an import path. Got {env!r}: {reason}"
        ) from error


def _import_plugin(task: str, env_id: str) -> None:
    """Register the ids of a package that does so only on request."""
    for prefix, plugin in PLUGINS.items():
        if not env_id.startswith(prefix):
            continue
        if importlib.util.find_spec(plugin.package) is None:
            raise ValueError(
                f"`tasks.{task}.env` must have its packages installed. Got {env_id!r}: run "
                f"`pip install 'lit-mtdqn[{plugin.extra}]'`."
            )
        getattr(importlib.import_module(plugin.module), plugin.function)()
