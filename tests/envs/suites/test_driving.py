"""Driving suite: rules of the road, Gymnasium's contract, and how hard the tasks are."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from lit_mtdqn.envs.suites import driving
from lit_mtdqn.envs.suites.driving import TASK_IDS, DrivingEnv, DrivingVectorEnv, drive_by_hand
from lit_mtdqn.envs.suites.driving.dynamics import NUM_ACTIONS
from lit_mtdqn.envs.suites.driving.observation import (
    LIGHT_GAP,
    LIGHT_GREEN,
    LIGHT_PRESENT,
    LIGHT_RED,
    OFFSET,
    PEDESTRIAN_LATERAL,
    PEDESTRIAN_PRESENT,
    REMAINING_ROAD,
    SPEED,
)

TASKS = tuple(TASK_IDS)
GAMMA = 0.98
NUM_EPISODES = 500
BRAKE_STRAIGHT = 1
ACCELERATE_LEFT, ACCELERATE_STRAIGHT = 6, 7

Observations = NDArray[np.float32]
Policy = Callable[[Observations], NDArray[Any]]


@dataclass
class Episodes:
    """First episodes of a batch: outcomes, returns and last two observations, one row each."""

    success: NDArray[np.bool_]
    terminated: NDArray[np.bool_]
    discounted_return: NDArray[np.float64]
    before: Observations
    last: Observations

    @property
    def violation(self) -> NDArray[np.bool_]:
        return self.terminated & ~self.success


def play(task: str, policy: Policy, num_episodes: int = NUM_EPISODES, seed: int = 0) -> Episodes:
    env = DrivingVectorEnv(task, num_episodes)
    observation, _ = env.reset(seed=seed)
    episodes = Episodes(
        success=np.zeros(num_episodes, bool),
        terminated=np.zeros(num_episodes, bool),
        discounted_return=np.zeros(num_episodes),
        before=observation.copy(),
        last=observation.copy(),
    )
    running, discount = np.ones(num_episodes, bool), 1.0
    while running.any():
        episodes.before[running] = observation[running]
        observation, reward, terminated, truncated, info = env.step(policy(observation))
        episodes.last[running] = observation[running]
        episodes.discounted_return[running] += discount * reward[running]
        episodes.success[running] = info["success"][running]
        episodes.terminated[running] = terminated[running]
        running &= ~(terminated | truncated)
        discount *= GAMMA
    return episodes


def constant(action: int) -> Policy:
    return lambda observation: np.full(len(observation), action)


def random_policy(seed: int) -> Policy:
    generator = np.random.default_rng(seed)
    return lambda observation: generator.integers(NUM_ACTIONS, size=len(observation))


def drive_without_looking(observation: Observations) -> NDArray[Any]:
    """Drive by hand, but see neither lights nor pedestrians."""
    blind = observation.copy()
    blind[:, LIGHT_PRESENT : LIGHT_RED + 1] = 0.0
    blind[:, PEDESTRIAN_PRESENT] = 0.0
    return drive_by_hand(blind)


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_random_policy_almost_never_succeeds(task: str) -> None:
    assert play(task, random_policy(1)).success.mean() <= 0.02


def test_no_constant_policy_succeeds_often(task: str) -> None:
    rates = [play(task, constant(action)).success.mean() for action in range(NUM_ACTIONS)]
    assert max(rates) <= 0.65


def test_the_hand_written_controller_succeeds_almost_always(task: str) -> None:
    assert play(task, drive_by_hand).success.mean() >= 0.99


@pytest.mark.parametrize("task", ["pedestrian", "traffic_light"])
def test_good_steering_alone_is_not_enough_where_the_car_must_yield(task: str) -> None:
    assert play(task, drive_without_looking).success.mean() <= 0.65


def test_success_pays_more_than_standing_still_or_a_violation(task: str) -> None:
    success = play(task, drive_by_hand).discounted_return.mean()
    standing = play(task, constant(BRAKE_STRAIGHT)).discounted_return.mean()
    violation = play(task, constant(ACCELERATE_LEFT)).discounted_return.mean()
    assert success > 0.3
    assert standing < 0.0
    assert violation < -0.5


def test_leaving_the_lane_ends_the_episode_as_a_violation(task: str) -> None:
    episodes = play(task, constant(ACCELERATE_LEFT))
    assert episodes.violation.all()
    assert (episodes.last[:, OFFSET] == 1.0).all()


def test_passing_the_stop_line_on_red_ends_the_episode_as_a_violation() -> None:
    episodes = play("traffic_light", drive_without_looking)
    ran_red = episodes.violation
    assert ran_red.mean() > 0.2
    assert (episodes.before[ran_red, LIGHT_RED] == 1.0).all()
    assert (episodes.before[ran_red, LIGHT_GAP] < 0.05).all()
    assert (episodes.last[ran_red, LIGHT_PRESENT] == 0.0).all()


def test_passing_a_pedestrian_closely_ends_the_episode_as_a_violation() -> None:
    episodes = play("pedestrian", drive_without_looking)
    too_close = episodes.violation
    assert too_close.mean() > 0.2
    assert (episodes.last[too_close, PEDESTRIAN_PRESENT] == 1.0).all()
    assert (np.abs(episodes.last[too_close, PEDESTRIAN_LATERAL]) < 0.42).all()


def test_success_means_that_no_road_remains(task: str) -> None:
    episodes = play(task, drive_by_hand)
    assert (episodes.last[episodes.success, REMAINING_ROAD] <= 0.0).all()


def test_the_time_limit_truncates(task: str) -> None:
    env = DrivingVectorEnv(task, 4, max_episode_steps=20)
    env.reset(seed=0)
    steps = [env.step(np.full(4, BRAKE_STRAIGHT)) for _ in range(20)]
    assert not any(truncated.any() for _, _, _, truncated, _ in steps[:-1])
    _, _, terminated, truncated, info = steps[-1]
    assert truncated.all()
    assert not terminated.any()
    assert info["_success"].all()
    assert not info["success"].any()


def test_the_light_is_green_for_6_yellow_for_2_and_red_for_6_seconds() -> None:
    env = DrivingVectorEnv("traffic_light", 8)
    env.reset(seed=0)
    seen = [env.step(np.full(8, BRAKE_STRAIGHT))[0] for _ in range(190)]
    colors = np.stack(seen)[:, :, LIGHT_GREEN : LIGHT_RED + 1].argmax(axis=2).T
    for row in colors:
        changes = np.flatnonzero(np.diff(row)) + 1
        whole = list(zip(row[changes[:-1]], np.diff(changes), strict=True))
        assert set(whole) == {(0, 30), (1, 10), (2, 30)}


def test_a_braking_car_stands_and_a_coasting_car_creeps() -> None:
    env = DrivingVectorEnv("traffic_light", 2)
    env.reset(seed=0)
    for _ in range(30):
        observation, *_ = env.step(np.array([BRAKE_STRAIGHT, BRAKE_STRAIGHT]))
    assert (observation[:, SPEED] == 0.0).all()
    observation, *_ = env.step(np.array([BRAKE_STRAIGHT, BRAKE_STRAIGHT + 3]))
    assert observation[0, SPEED] == 0.0
    assert observation[1, SPEED] > 0.0


def test_observations_stay_within_their_bounds(task: str) -> None:
    env = DrivingVectorEnv(task, 32)
    observation, _ = env.reset(seed=0)
    policy = random_policy(2)
    for _ in range(300):
        assert env.observation_space.contains(observation)
        observation, *_ = env.step(policy(observation))


def test_the_same_seed_and_actions_give_the_same_trajectory(task: str) -> None:
    def rollout() -> NDArray[np.float32]:
        env = DrivingVectorEnv(task, 3)
        observation, _ = env.reset(seed=5)
        policy = random_policy(3)
        return np.stack([env.step(policy(observation))[0] for _ in range(150)])

    np.testing.assert_array_equal(rollout(), rollout())


def test_the_step_after_an_end_ignores_the_action_and_starts_an_episode(task: str) -> None:
    env = DrivingVectorEnv(task, 3, max_episode_steps=7)
    env.reset(seed=0)
    for _ in range(7):
        *_, truncated, _ = env.step(np.full(3, BRAKE_STRAIGHT))
    assert truncated.all()
    before = env.get_state()
    reset_observation, _ = env.reset()
    for action in (BRAKE_STRAIGHT, ACCELERATE_LEFT):
        env.set_state(before)
        observation, reward, terminated, truncated, info = env.step(np.full(3, action))
        np.testing.assert_array_equal(observation, reset_observation)
        np.testing.assert_array_equal(reward, np.zeros(3, np.float32))
        assert not (terminated | truncated | info["_success"] | info["success"]).any()


def test_an_end_restarts_only_its_own_episode() -> None:
    env = DrivingVectorEnv("lane_keeping", 2)
    observation, _ = env.reset(seed=0)
    ended = np.zeros(2, bool)
    while not ended[0]:
        by_hand = drive_by_hand(observation)
        observation, _, ended, _, _ = env.step(np.array([ACCELERATE_LEFT, by_hand[1]]))
    assert not ended[1]
    remaining = observation[1, REMAINING_ROAD]
    observation, reward, ended, _, _ = env.step(np.array([ACCELERATE_LEFT, ACCELERATE_STRAIGHT]))
    assert observation[0, REMAINING_ROAD] == 1.0
    assert 0.0 < observation[1, REMAINING_ROAD] < remaining
    assert reward[0] == 0.0
    assert reward[1] != 0.0


def test_a_restored_state_continues_exactly(task: str) -> None:
    def rollout(env: DrivingVectorEnv) -> list[NDArray[Any]]:
        policy = random_policy(4)
        steps = [env.step(policy(np.zeros((5, 20), np.float32)))[:4] for _ in range(150)]
        return [np.stack(column) for column in zip(*steps, strict=True)]

    env = DrivingVectorEnv(task, 5)
    env.reset(seed=0)
    rollout(env)
    state = env.get_state()
    expected = rollout(env)
    fresh = DrivingVectorEnv(task, 5)
    fresh.set_state(state)
    for actual, wanted in zip(rollout(fresh), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_what_a_step_returns_does_not_change_later(task: str) -> None:
    env = DrivingVectorEnv(task, 4, max_episode_steps=10)
    env.reset(seed=0)
    policy = random_policy(6)
    *arrays, info = env.step(policy(np.zeros((4, 20), np.float32)))
    arrays += info.values()
    copies = [array.copy() for array in arrays]
    for _ in range(12):
        env.step(policy(np.zeros((4, 20), np.float32)))
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_single_environment_drives_like_a_batch_of_one(task: str) -> None:
    single, batch = DrivingEnv(task), DrivingVectorEnv(task, 1)
    observation, _ = single.reset(seed=7)
    np.testing.assert_array_equal(observation, batch.reset(seed=7)[0][0])
    is_over = False
    for action in np.random.default_rng(8).integers(NUM_ACTIONS, size=300):
        rows, rewards, terminated, truncated, infos = batch.step(np.array([action]))
        if is_over:
            observation, _ = single.reset()
            np.testing.assert_array_equal(observation, rows[0])
            is_over = False
            continue
        observation, *rest, info = single.step(action)
        np.testing.assert_array_equal(observation, rows[0])
        assert rest == [rewards[0], terminated[0], truncated[0]]
        assert info == {"success": infos["success"][0]}
        is_over = bool(terminated[0] or truncated[0])


def test_a_single_environment_refuses_steps_after_the_end() -> None:
    env = DrivingEnv("lane_keeping", max_episode_steps=1)
    env.reset(seed=0)
    env.step(np.int64(BRAKE_STRAIGHT))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.int64(BRAKE_STRAIGHT))


@pytest.mark.parametrize("env_id", TASK_IDS.values())
def test_single_environments_pass_the_checker(env_id: str) -> None:
    check_env(gymnasium.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", TASK_IDS.values())
def test_ids_make_batches(env_id: str) -> None:
    env = gymnasium.make_vec(env_id, num_envs=16, vectorization_mode="vector_entry_point")
    observation, _ = env.reset(seed=0)
    assert isinstance(env.unwrapped, DrivingVectorEnv)
    assert observation.shape == (16, 20)


def test_importing_again_registers_nothing_twice() -> None:
    specs = [gymnasium.spec(env_id) for env_id in TASK_IDS.values()]
    importlib.reload(driving)
    assert all(gymnasium.spec(spec.id) is spec for spec in specs)


def test_frames_are_images_that_differ_between_scenes() -> None:
    frames = []
    for env_id in TASK_IDS.values():
        env = gymnasium.make(env_id, render_mode="rgb_array")
        env.reset(seed=0)
        frames.append(np.asarray(env.render()))
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((270, 480, 3), "uint8")}
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def rendered(env: DrivingVectorEnv) -> bytes:
    frames = env.render()
    assert frames is not None
    return np.asarray(frames[0]).tobytes()


def test_frames_show_the_color_of_the_light() -> None:
    env = DrivingVectorEnv("traffic_light", 1, render_mode="rgb_array")
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.array([BRAKE_STRAIGHT]))
    frames = set()
    for _ in range(70):
        env.step(np.array([BRAKE_STRAIGHT]))
        frames.add(rendered(env))
    assert len(frames) == 3


def test_frames_show_the_outcome() -> None:
    env = DrivingVectorEnv("pedestrian", 1, max_episode_steps=1, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([BRAKE_STRAIGHT]))
    ended, state = rendered(env), env.get_state()
    state["outcome"][:] = 0
    env.set_state(state)
    assert rendered(env) != ended


def test_without_a_render_mode_there_is_no_frame() -> None:
    env = DrivingVectorEnv("pedestrian", 1)
    env.reset(seed=0)
    assert env.render() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "flying"}, "`task` must be one of"),
        ({"task": "pedestrian", "num_envs": 0}, "`num_envs` must be at least 1"),
        ({"task": "pedestrian", "max_episode_steps": 0}, "`max_episode_steps` must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DrivingVectorEnv(**arguments)


@pytest.mark.parametrize("actions", [[0], [0, 9], [-1, 0]])
def test_wrong_actions_are_refused(actions: list[int]) -> None:
    env = DrivingVectorEnv("pedestrian", 2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="`actions` must"):
        env.step(np.array(actions))
