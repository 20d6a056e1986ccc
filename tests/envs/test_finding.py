"""Environments are found, or refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.asserts import complaint

from lit_mtdqn.envs import make_vector_env
from lit_mtdqn.envs.finding import PLUGINS, Plugin
from lit_mtdqn.types import TaskSpec


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ("NoSuchEnv-v0", "registered id"),
        ("CartPole-v99", "registered id"),
        ("CartPole", "registered id"),
        ("LunarLander-v2", "registered id"),
        ("no_such_package:Env-v0", "importable"),
        ("no_such_package:make_env", "importable"),
        ("no_such_package.make_env", "importable"),
        ("helpers.showing_env:no_such_name", "callable"),
        ("helpers.showing_env:not_callable", "callable"),
        ("helpers.showing_env:NoSuchEnv-v0", "registered id"),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "sync"])
def test_an_environment_that_cannot_be_found_is_refused_in_one_sentence(
    env: str, reason: str, backend: Any
) -> None:
    with pytest.raises(ValueError, match=complaint("tasks.maze.env")) as caught:
        make_vector_env("maze", TaskSpec(env=env, backend=backend), 1)
    assert reason in str(caught.value)
    assert repr(env) in str(caught.value)


@pytest.mark.parametrize("backend", ["auto", "sync"])
def test_a_missing_plugin_is_named_with_the_extra_that_installs_it(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLUGINS, "Absent/", Plugin("no_such_package", "", "", "absent"))
    spec = TaskSpec(env="Absent/Maze-v0", backend=backend)
    with pytest.raises(ValueError, match=r"^`tasks\.a\.env` must have.+lit-mtdqn\[absent\]"):
        make_vector_env("a", spec, 1)
