from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from helpers.asserts import complaint
from helpers.counting_env import SINGLE, VECTOR, CountingEnv, CountingVectorEnv, reward_at

from lit_mtdqn.envs import make_single_env, make_vector_env, without_processes
from lit_mtdqn.types import TaskSpec

MODULE_ID = "helpers.counting_env:Counting-v0"
FACTORY = "helpers.showing_env:make_counting"


@pytest.mark.parametrize(
    "env", ["Counting-v0", MODULE_ID, SINGLE, "helpers.counting_env.CountingEnv", FACTORY]
)
@pytest.mark.parametrize("backend", ["auto", "sync", "async"])
def test_an_environment_is_found_by_id_and_by_import_path(env: str, backend: Any) -> None:
    spec = TaskSpec(env=env, backend=backend)
    single = make_single_env("a", spec)
    assert isinstance(single.unwrapped, CountingEnv)
    vector = make_vector_env("a", spec, 3)
    assert vector.num_envs == 3
    assert vector.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    vector.close()


@pytest.mark.parametrize(
    ("env", "backend", "kind"),
    [
        ("Counting-v0", "auto", CountingVectorEnv),
        ("Counting-v0", "vector", CountingVectorEnv),
        ("Counting-v0", "sync", SyncVectorEnv),
        (MODULE_ID, "auto", CountingVectorEnv),
        (VECTOR, "auto", CountingVectorEnv),
        (VECTOR, "vector", CountingVectorEnv),
        (SINGLE, "auto", SyncVectorEnv),
        (SINGLE, "sync", SyncVectorEnv),
        ("Counting-v0", "async", AsyncVectorEnv),
        (SINGLE, "async", AsyncVectorEnv),
    ],
)
def test_the_batched_form_is_taken_where_there_is_one(env: str, backend: Any, kind: type) -> None:
    vector = make_vector_env("a", TaskSpec(env=env, backend=backend), 2)
    assert isinstance(vector.unwrapped, kind)
    vector.close()


def test_one_copy_has_a_process_of_its_own_too_and_a_look_at_it_has_none() -> None:
    spec = TaskSpec(env=SINGLE, backend="async", restarts=1, step_timeout=9.0)
    for task, kind in ((spec, AsyncVectorEnv), (without_processes(spec), SyncVectorEnv)):
        vector = make_vector_env("a", task, 1)
        assert isinstance(vector, kind)
        vector.close()


def test_a_missing_extra_of_a_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^`tasks\.a\.backend` must have.+lit-mtdqn\[envpool\]"):
        make_vector_env("a", TaskSpec(env="CartPole-v1", backend="envpool"), 2)


@pytest.mark.parametrize(
    ("env", "wrappers"),
    [
        (SINGLE, []),
        (VECTOR, ["FlattenObservation"]),
        ("Acrobot-v1", []),
        ("helpers.showing_env:SameStepVectorEnv", []),
        ("helpers.showing_env:UnlimitedWithLimit-v0", []),
    ],
)
def test_a_missing_batched_form_is_refused_where_it_was_asked_for(
    env: str, wrappers: list[str]
) -> None:
    spec = TaskSpec(env=env, wrappers=[*wrappers], backend="vector")
    with pytest.raises(ValueError, match=complaint("tasks.a.backend")):
        make_vector_env("a", spec, 2)


@pytest.mark.parametrize(
    "spec",
    [
        TaskSpec(env=VECTOR, backend="sync"),
        TaskSpec(env=VECTOR, backend="async"),
        TaskSpec(env=VECTOR, wrappers=["FlattenObservation"]),
        TaskSpec(env="helpers.showing_env:SameStepVectorEnv"),
    ],
    ids=["sync", "async", "wrapped", "same-step autoreset"],
)
def test_a_batched_environment_that_cannot_be_used_as_such_is_refused(spec: TaskSpec) -> None:
    with pytest.raises(ValueError, match=r"^`tasks\.a\.\w+` must [^\n]+ Got [^\n]+\Z"):
        make_vector_env("a", spec, 2)


@pytest.mark.parametrize("env", [FACTORY, "Counting-v0"])
def test_kwargs_reach_the_environment_and_can_be_overridden(env: str) -> None:
    spec = TaskSpec(env=env, kwargs={"offset": 10.0})
    for overriding, offset in (({}, 10.0), ({"offset": 20.0}, 20.0)):
        single = make_single_env("a", spec, **overriding)
        single.reset(seed=4)
        assert single.step(0)[1] == reward_at(4, 0, 0) + offset


def test_wrappers_are_named_by_class_path_and_the_first_is_innermost() -> None:
    wrappers: list[str | dict[str, Any]] = [
        "gymnasium.wrappers.FlattenObservation",
        {"class_path": "gymnasium.wrappers.TimeLimit", "init_args": {"max_episode_steps": 2}},
        "RecordEpisodeStatistics",
    ]
    env = make_single_env("a", TaskSpec(env=SINGLE, wrappers=wrappers))
    names = []
    while isinstance(env, gymnasium.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    assert names == ["RecordEpisodeStatistics", "TimeLimit", "FlattenObservation"]


def test_wrappers_go_around_every_copy() -> None:
    vector = make_vector_env("a", TaskSpec(env="CartPole-v1", wrappers=["FlattenObservation"]), 2)
    assert isinstance(vector, SyncVectorEnv)
    assert all(isinstance(env, gymnasium.wrappers.FlattenObservation) for env in vector.envs)


@pytest.mark.parametrize("env", ["Counting-v0", SINGLE, FACTORY])
def test_a_time_limit_truncates(env: str) -> None:
    single = make_single_env("a", TaskSpec(env=env, time_limit=2))
    single.reset(seed=0)
    assert single.step(0)[2:4] == (False, False)
    assert single.step(0)[2:4] == (False, True)


@pytest.mark.parametrize(
    ("env", "time_limit", "kind"),
    [
        ("Counting-v0", 2, CountingVectorEnv),
        ("helpers.showing_env:Unlimited-v0", None, CountingVectorEnv),
        ("helpers.showing_env:Unlimited-v0", 2, SyncVectorEnv),
        ("helpers.showing_env:UnlimitedWithLimit-v0", None, SyncVectorEnv),
    ],
)
def test_a_batched_form_that_takes_no_time_limit_is_taken_only_where_none_is_set(
    env: str, time_limit: int | None, kind: type
) -> None:
    vector = make_vector_env("a", TaskSpec(env=env, time_limit=time_limit), 2)
    assert isinstance(vector.unwrapped, kind)


def test_copies_are_limited_where_the_batched_form_cannot_be() -> None:
    kwargs = {"pattern": (9,)}
    vector = make_vector_env(
        "a", TaskSpec(env="helpers.showing_env:Unlimited-v0", time_limit=2, kwargs=kwargs), 2
    )
    vector.reset(seed=0)
    actions = np.zeros(2, np.int64)
    assert not vector.step(actions)[3].any()
    assert vector.step(actions)[3].all()


def test_a_time_limit_that_a_batched_class_does_not_take_is_refused_by_name() -> None:
    spec = TaskSpec(env="helpers.showing_env:UnlimitedVectorEnv", time_limit=2)
    with pytest.raises(ValueError, match=complaint("tasks.a.time_limit")):
        make_vector_env("a", spec, 2)


def _has_checker(spec: TaskSpec) -> bool:
    env = make_single_env("a", spec)
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.PassiveEnvChecker):
            return True
        env = env.env
    return False


def test_gymnasiums_checker_is_off_unless_it_is_asked_for() -> None:
    assert not _has_checker(TaskSpec(env="Acrobot-v1"))
    assert _has_checker(TaskSpec(env="Acrobot-v1", kwargs={"disable_env_checker": False}))


@pytest.mark.parametrize(("package", "hint"), [("mujoco", ""), ("Box2D", r"lit-mtdqn\[box2d\]")])
def test_a_missing_package_of_an_environment_is_named(package: str, hint: str) -> None:
    spec = TaskSpec(env="helpers.showing_env:needs", kwargs={"package": package})
    with pytest.raises(
        ValueError, match=rf"^`tasks\.a\.env` must have its packages.+{package}.+{hint}"
    ):
        make_single_env("a", spec)


@pytest.mark.parametrize("env", ["Counting-v0", SINGLE, VECTOR])
def test_kwargs_that_an_environment_does_not_take_are_refused(env: str) -> None:
    with pytest.raises(ValueError, match=complaint("tasks.a.env")):
        make_vector_env("a", TaskSpec(env=env, kwargs={"no_such": 1}), 1)


@pytest.mark.parametrize(
    "wrapper",
    [
        "NoSuchWrapper",
        "gymnasium.wrappers.NoSuchWrapper",
        "no_such_package.Wrapper",
        {},
        {"class_path": "gymnasium.wrappers.TimeLimit"},
        {"class_path": "gymnasium.wrappers.TimeLimit", "init_args": {"max_episode_steps": -1}},
        {"class_path": "gymnasium.wrappers.ResizeObservation", "init_args": {"shape": [8, 8]}},
        {"class_path": "gymnasium.wrappers.DiscretizeAction", "init_args": {"bins": 5}},
    ],
    ids=str,
)
def test_a_wrapper_that_does_not_fit_is_refused_in_one_sentence(wrapper: Any) -> None:
    with pytest.raises(ValueError, match=complaint("tasks.a.wrappers")):
        make_single_env("a", TaskSpec(env=SINGLE, wrappers=[wrapper]))
