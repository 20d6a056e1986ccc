"""Driving with imperfect sensors: noise and late detection, seeded and saved with the state."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from lit_mtdqn.envs.suites.driving import TASK_IDS, DrivingEnv, DrivingVectorEnv
from lit_mtdqn.envs.suites.driving.dynamics import NUM_ACTIONS
from lit_mtdqn.envs.suites.driving.observation import (
    GAP_SCALE,
    LIGHT_GAP,
    LIGHT_PRESENT,
    LIGHT_RED,
    PEDESTRIAN_GAP,
    PEDESTRIAN_PRESENT,
    PEDESTRIAN_PROGRESS,
    STOPPING_MARGIN,
)

NUM_ENVS = 64
STEPS = 120
RANGE = 12.0  # m
SEEN = {
    "pedestrian": (PEDESTRIAN_GAP, slice(PEDESTRIAN_PRESENT, PEDESTRIAN_PROGRESS + 1)),
    "traffic_light": (LIGHT_GAP, slice(LIGHT_PRESENT, LIGHT_RED + 1)),
}

Array = NDArray[Any]


def rollout(env: DrivingVectorEnv, seed: int | None = 5, steps: int = STEPS) -> list[Array]:
    """Drive by random actions; return observations, rewards and ends, [steps, num_envs, ...]."""
    if seed is not None:
        env.reset(seed=seed)
    actions = np.random.default_rng(3).integers(NUM_ACTIONS, size=(steps, env.num_envs))
    rows = [env.step(action)[:4] for action in actions]
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.fixture(params=TASK_IDS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_perfect_sensors_draw_nothing(task: str) -> None:
    plain = DrivingVectorEnv(task, NUM_ENVS)
    perfect = {"observation_noise": 0.0, "sensor_gain": 1.0, "sensor_bias": 0.0}
    explicit = DrivingVectorEnv(task, NUM_ENVS, detection_range=None, **perfect)  # type: ignore[arg-type]
    far = DrivingVectorEnv(task, NUM_ENVS, detection_range=1000.0)
    expected = rollout(plain)
    for env in (explicit, far):
        for found, wanted in zip(rollout(env), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_noise_is_a_fresh_error_of_the_stated_size_on_every_number(task: str) -> None:
    clean, noisy = (
        DrivingVectorEnv(task, 2_000),
        DrivingVectorEnv(task, 2_000, observation_noise=0.1),
    )
    truth, _ = clean.reset(seed=1)
    errors: list[Array] = []
    for _ in range(2):
        seen, _ = noisy.reset(seed=1) if not errors else noisy.step(np.full(2_000, 7))[:2]
        if errors:
            truth = clean.step(np.full(2_000, 7))[0]
        assert seen.dtype == np.float32
        assert np.abs(seen).max() <= 1.0
        errors.append(np.where(np.abs(truth) < 0.5, seen - truth, np.nan))
    for error in errors:
        inside = [column[~np.isnan(column)] for column in error.T]
        spreads = [column.std() for column in inside if len(column) > 1_000]
        assert len(spreads) >= 10
        np.testing.assert_allclose(spreads, 0.1, rtol=0.1)
    assert abs(np.corrcoef(errors[0][:, 0], errors[1][:, 0])[0, 1]) < 0.1


def test_sensors_change_neither_roads_nor_rewards_nor_ends_of_the_first_episodes(task: str) -> None:
    env = DrivingVectorEnv(task, NUM_ENVS)
    blurred = DrivingVectorEnv(task, NUM_ENVS, observation_noise=0.3, detection_range=5.0)
    _, rewards, terminated, truncated = rollout(env)
    _, its_rewards, its_terminated, _ = rollout(blurred)
    first: Array = np.cumsum(terminated | truncated, axis=0) - (terminated | truncated) == 0
    assert first.mean() > 0.1
    np.testing.assert_array_equal(its_rewards[first], rewards[first])
    np.testing.assert_array_equal(its_terminated[first], terminated[first])


@pytest.mark.parametrize("task", SEEN)
def test_what_is_out_of_range_looks_absent_and_what_is_in_range_looks_as_ever(task: str) -> None:
    gap, columns = SEEN[task]
    observation = rollout(DrivingVectorEnv(task, NUM_ENVS))[0]
    late = rollout(DrivingVectorEnv(task, NUM_ENVS, detection_range=RANGE))[0]
    far = observation[..., gap] * GAP_SCALE > RANGE
    assert 0.1 < far.mean() < 0.9
    assert (late[far][:, columns] == 0.0).all()
    assert (late[far][:, STOPPING_MARGIN] == 1.0).all()
    np.testing.assert_array_equal(late[~far], observation[~far])
    others = np.ones(20, bool)
    others[columns] = others[STOPPING_MARGIN] = False
    np.testing.assert_array_equal(late[..., others], observation[..., others])


def test_shifted_sensors_err_alike_on_every_number_at_every_step(task: str) -> None:
    observation, *rest = rollout(DrivingVectorEnv(task, NUM_ENVS))
    env = DrivingVectorEnv(task, NUM_ENVS, sensor_gain=0.8, sensor_bias=0.3)
    shifted, *its_rest = rollout(env)
    expected = np.clip(np.float32(0.8) * observation + np.float32(0.3), -1.0, 1.0)
    np.testing.assert_array_equal(shifted, expected)
    assert shifted.dtype == np.float32
    assert (shifted == 1.0).any()
    for found, wanted in zip(its_rest, rest, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_seed_repeats_the_noise_and_another_one_does_not(task: str) -> None:
    first, again, other = (
        rollout(DrivingVectorEnv(task, NUM_ENVS, observation_noise=0.2), seed)[0]
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_restored_state_continues_with_the_same_noise(task: str) -> None:
    env = DrivingVectorEnv(task, 5, observation_noise=0.2, detection_range=RANGE)
    rollout(env)
    state = env.get_state()
    expected = rollout(env, seed=None)
    fresh = DrivingVectorEnv(task, 5, observation_noise=0.2, detection_range=RANGE)
    fresh.set_state(state)
    for found, wanted in zip(rollout(fresh, seed=None), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_single_environment_has_the_same_sensors(task: str) -> None:
    sensors = {
        "observation_noise": 0.1,
        "detection_range": RANGE,
        "sensor_gain": 0.9,
        "sensor_bias": 0.2,
    }
    single, batch = DrivingEnv(task, **sensors), DrivingVectorEnv(task, 1, **sensors)  # type: ignore[arg-type]
    np.testing.assert_array_equal(single.reset(seed=7)[0], batch.reset(seed=7)[0][0])
    for _ in range(10):
        np.testing.assert_array_equal(single.step(np.int64(4))[0], batch.step(np.array([4]))[0][0])


@pytest.mark.parametrize("env_id", TASK_IDS.values())
def test_a_noisy_single_environment_passes_the_checker(env_id: str) -> None:
    check_env(gymnasium.make(env_id, observation_noise=0.1, detection_range=RANGE).unwrapped)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observation_noise": -0.1}, "`observation_noise` must be at least 0"),
        ({"detection_range": 0.0}, "`detection_range` must be above 0 m"),
        ({"sensor_gain": 0.0}, "`sensor_gain` must be above 0"),
    ],
)
def test_wrong_sensors_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DrivingVectorEnv("pedestrian", **arguments)
