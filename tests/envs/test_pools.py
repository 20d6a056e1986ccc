"""EnvPool's batches; needs the extra `envpool`, which `make test-slow` installs."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from helpers.asserts import complaint
from numpy.typing import NDArray

from lit_mtdqn.envs import TaskEnv, make_vector_env, probe_tasks
from lit_mtdqn.envs.pools import EnvPoolVectorEnv
from lit_mtdqn.types import StepRow, TaskSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("envpool") is None, reason="needs pip install lit-mtdqn[envpool]"),
]

NUM_ENVS = 3
SEED = 2**24 + 10
KEPT: Any = {"class_path": "FilterObservation", "init_args": {"filter_keys": ["image"]}}
CARTPOLE = TaskSpec(env="CartPole-v1", backend="envpool", kwargs={"num_threads": 1})

Array = NDArray[Any]


def _env(spec: TaskSpec, num_envs: int = NUM_ENVS) -> TaskEnv:
    return TaskEnv("a", spec, num_envs, probe_tasks({"a": spec})[0])


def _play(env: TaskEnv, vector_steps: int, seed: int = SEED) -> list[StepRow]:
    env.reset(seed)
    actions = np.random.default_rng(0).integers(2, size=(vector_steps, env.num_envs))
    return [env.step(action) for action in actions]


def _pool(*, env: str = "CartPole-v1", **fields: Any) -> TaskSpec:
    return TaskSpec(env=env, backend="envpool", **fields)


def test_a_pool_has_batched_spaces_and_next_step_autoreset() -> None:
    env = make_vector_env("a", CARTPOLE, NUM_ENVS)
    assert isinstance(env.unwrapped, EnvPoolVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.single_observation_space.shape == (4,)
    assert env.observation_space.shape == (NUM_ENVS, 4)
    assert env.action_space.shape == (NUM_ENVS,)
    env.close()


def test_rows_are_those_of_the_contract() -> None:
    rows = _play(_env(CARTPOLE), 200)
    for before, row in pairwise(rows):
        ended = before.terminated | before.truncated
        np.testing.assert_array_equal(row.valid, ~ended)
        np.testing.assert_array_equal(row.reward, (~ended).astype(np.float32))
        np.testing.assert_array_equal(row.observation, before.next_observation)
        first = row.next_observation[ended]
        assert (np.abs(first) <= 0.05).all()
    assert sum(int((~row.valid).sum()) for row in rows) > 10
    assert rows[0].observation.dtype == rows[0].reward.dtype == np.float32


def test_later_steps_change_no_earlier_row() -> None:
    env = _env(CARTPOLE)
    row = _play(env, 1)[0]
    copies = [array.copy() for array in row if isinstance(array, np.ndarray)]
    _play(env, 5)
    arrays = [array for array in row if isinstance(array, np.ndarray)]
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_reset_starts_every_copy_from_a_seed_of_its_own() -> None:
    env = _env(CARTPOLE)
    first, _ = env.reset(5)
    again, _ = env.reset(5)
    shifted, _ = env.reset(6)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[1:], shifted[:-1])
    assert len({tuple(row) for row in first}) == NUM_ENVS


def test_a_reset_repeats_whole_trajectories_and_one_without_a_seed_goes_on() -> None:
    first, second = (_play(_env(CARTPOLE), 60)[-1].next_observation for _ in range(2))
    np.testing.assert_array_equal(first, second)
    env = make_vector_env("a", CARTPOLE, NUM_ENVS)
    seeded, _ = env.reset(seed=3)
    assert not np.array_equal(env.reset()[0], seeded)


def test_a_time_limit_truncates_and_does_not_terminate() -> None:
    rows = _play(_env(_pool(time_limit=4)), 5)
    assert rows[3].truncated.all()
    assert not rows[3].terminated.any()
    assert not rows[4].valid.any()


def test_wrappers_go_around_the_whole_batch() -> None:
    spec = _pool(env="MiniGrid-Empty-5x5-v0", wrappers=[KEPT])
    layout, infos = probe_tasks({"a": spec})
    assert (layout.observation_shape, infos[0].observation_kind) == ((3, 7, 7), "image")
    row = _play(_env(spec), 3)[-1]
    assert row.observation.shape == (NUM_ENVS, 3, 7, 7)
    assert row.observation.dtype == np.uint8


def test_an_image_beside_vectors_is_refused_unless_it_is_flattened_or_alone() -> None:
    with pytest.raises(ValueError, match=r"^`tasks\.a\.env` must have .+'image': 'image'"):
        probe_tasks({"a": _pool(env="MiniGrid-Empty-5x5-v0")})
    both: Any = {
        "class_path": "FilterObservation",
        "init_args": {"filter_keys": ["image", "direction"]},
    }
    spec = _pool(env="MiniGrid-Empty-5x5-v0", wrappers=[both, "FlattenObservation"])
    layout, _ = probe_tasks({"a": spec})
    assert layout.observation_shape == (7 * 7 * 3 + 4,)
    observation = _play(_env(spec), 3)[-1].observation
    np.testing.assert_array_equal(observation[:, :4].sum(1), 1.0)


def test_a_pool_has_no_state_and_says_so() -> None:
    env = _env(CARTPOLE)
    env.reset(SEED)
    assert env.get_state() is None


def test_a_pool_draws_pictures_on_request() -> None:
    env = make_vector_env("a", CARTPOLE, 1, render_mode="rgb_array")
    env.reset(seed=0)
    frames = env.render()
    assert frames is not None
    picture = np.asarray(frames[0])
    assert (picture.ndim, picture.dtype.name) == (3, "uint8")
    assert make_vector_env("a", CARTPOLE, 1).render() is None


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (_pool(env="NoSuchEnv-v0"), "env"),
        (_pool(kwargs={"no_such": 1}), "env"),
        (_pool(wrappers=["NoSuchWrapper"]), "wrappers"),
    ],
    ids=["id", "argument", "wrapper"],
)
def test_what_envpool_does_not_have_is_refused_in_one_sentence(spec: TaskSpec, name: str) -> None:
    with pytest.raises(ValueError, match=complaint(f"tasks.a.{name}")):
        make_vector_env("a", spec, 2)
