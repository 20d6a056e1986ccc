"""Batched MinAtar: the same frames as single copies, with states that can be saved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from lit_mtdqn.envs import make_vector_env
from lit_mtdqn.envs.suites.minatar import MinAtarVectorEnv
from lit_mtdqn.types import TaskSpec

NUM_ENVS = 3
GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
SHORT = 40  # frames

Array = NDArray[Any]


@pytest.fixture(params=GAMES)
def env_id(request: pytest.FixtureRequest) -> str:
    return f"MinAtar/{request.param}-v1"


def random_actions(env: Any, steps: int, seed: int = 0) -> Array:
    count = int(env.single_action_space.n)
    return np.random.default_rng(seed).integers(count, size=(steps, NUM_ENVS))


@pytest.mark.parametrize("time_limit", [None, SHORT])
def test_a_batch_plays_as_single_copies_do(env_id: str, time_limit: int | None) -> None:
    batch, singles = (
        make_vector_env("a", TaskSpec(env=env_id, backend=backend, time_limit=time_limit), NUM_ENVS)
        for backend in ("auto", "sync")
    )
    assert isinstance(batch.unwrapped, MinAtarVectorEnv)
    assert isinstance(singles, SyncVectorEnv)
    assert batch.single_observation_space == singles.single_observation_space
    assert batch.single_action_space == singles.single_action_space
    for seed in (7, 8):
        np.testing.assert_array_equal(batch.reset(seed=seed)[0], singles.reset(seed=seed)[0])
        for action in random_actions(batch, 200, seed):
            for found, wanted in zip(batch.step(action)[:4], singles.step(action)[:4], strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_resets_without_a_seed_draw_on(env_id: str) -> None:
    batch = make_vector_env("a", TaskSpec(env=env_id), NUM_ENVS)
    singles = make_vector_env("a", TaskSpec(env=env_id, backend="sync"), NUM_ENVS)
    for seed in (3, None):
        np.testing.assert_array_equal(batch.reset(seed=seed)[0], singles.reset(seed=seed)[0])
        for action in random_actions(batch, 30):
            np.testing.assert_array_equal(batch.step(action)[0], singles.step(action)[0])


def test_arguments_reach_the_game() -> None:
    kwargs = {"sticky_action_prob": 0.0, "use_minimal_action_set": False}
    env = make_vector_env("a", TaskSpec(env="MinAtar/Breakout-v1", kwargs=kwargs), NUM_ENVS)
    assert env.single_action_space == spaces.Discrete(6)
    env.reset(seed=0)
    right = env.step(np.full(NUM_ENVS, 3))[0]
    assert right[:, 9, 5, 0].all()  # nothing sticks: every paddle went to the right


def test_a_restored_state_continues_exactly(env_id: str) -> None:
    def rollout(env: Any) -> list[Array]:
        steps = [env.step(action)[:4] for action in random_actions(env, 150, seed=4)]
        return [np.stack(column) for column in zip(*steps, strict=True)]

    spec = TaskSpec(env=env_id, time_limit=SHORT)
    env: Any = make_vector_env("a", spec, NUM_ENVS).unwrapped
    env.reset(seed=0)
    rollout(env)
    state = env.get_state()
    expected = rollout(env)
    for fresh in (make_vector_env("a", spec, NUM_ENVS).unwrapped, env):
        fresh.set_state(state)  # type: ignore[union-attr]
        for actual, wanted in zip(rollout(fresh), expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="`state` must hold 2 episodes"):
        MinAtarVectorEnv("breakout", num_envs=2).set_state(MinAtarVectorEnv("breakout").get_state())


def test_frames_are_pictures_that_change() -> None:
    env = MinAtarVectorEnv("breakout", render_mode="rgb_array")
    env.reset(seed=0)
    frames = []
    for _ in range(2):
        rendered = env.render()
        assert rendered is not None
        frames.append(np.asarray(rendered[0]))
        env.step(np.zeros(1, np.int64))
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((320, 320, 3), "uint8")}
    assert not np.array_equal(frames[0], frames[1])
    assert MinAtarVectorEnv("breakout").render() is None


@pytest.mark.parametrize("name", ["num_envs", "max_episode_steps"])
def test_wrong_arguments_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1"):
        MinAtarVectorEnv("breakout", **{name: 0})  # type: ignore[arg-type]
