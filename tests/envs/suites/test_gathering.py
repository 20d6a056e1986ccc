"""The gathering field: what is walked, what is gathered, what it is worth."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from helpers.asserts import complaint
from helpers.gathering import tabulate
from helpers.tabular import optimal_q

from lit_mtdqn.envs.suites.gathering import ENV_ID, GatheringEnv, GatheringVectorEnv

UP, RIGHT, DOWN, LEFT = range(4)
NUM_ENVS = 6


def _placed(cell: int, **options: Any) -> GatheringVectorEnv:
    """Return one copy whose walker stands in a cell."""
    env = GatheringVectorEnv(1, **options)
    env.reset(seed=0)
    env._cell[:] = cell
    return env


def test_a_walk_gathers_each_thing_once_and_ends_with_the_last() -> None:
    env = _placed(1, worth=[2.0, -3.0], field=["A.", "B."])
    walk = [
        (LEFT, 0, 2.0, [1.0, 0.0], False),
        (UP, 0, 0.0, [0.0, 0.0], False),
        (DOWN, 2, -3.0, [0.0, 1.0], True),
    ]
    for action, cell, reward, cumulants, ended in walk:
        observation, found, terminated, truncated, info = env.step(np.array([action]))
        assert observation[0, :4].argmax() == cell
        assert found.tolist() == [reward]
        assert info["cumulants"].tolist() == [cumulants]
        assert (bool(terminated[0]), bool(truncated[0])) == (ended, False)
    assert observation[0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    # The next step starts anew, whatever the action.
    observation, found, terminated, _, info = env.step(np.array([RIGHT]))
    assert int(observation[0, :4].argmax()) in (1, 3)
    assert observation[0, 4:].tolist() == [1.0, 1.0]
    assert (found.tolist(), terminated.tolist()) == ([0.0], [False])
    assert not info["cumulants"].any()


def test_walls_hold_and_rows_do_not_wrap() -> None:
    env = _placed(3, worth=[1.0], field=["A..", "...", "..."], max_episode_steps=50)
    cells = []
    for action in (LEFT, DOWN, LEFT, DOWN, RIGHT, RIGHT, RIGHT, UP, UP, UP):
        observation, *_ = env.step(np.array([action]))
        cells.append(int(observation[0, :9].argmax()))
    assert cells == [3, 6, 6, 6, 7, 8, 8, 5, 2, 2]


@pytest.mark.parametrize("worth", [[1.0, 0.0], [0.5, -2.0]])
def test_rewards_are_the_worth_of_what_was_gathered(worth: list[float]) -> None:
    env = GatheringVectorEnv(NUM_ENVS, worth)
    env.reset(seed=3)
    generator, gathered = np.random.default_rng(0), 0.0
    ends = np.zeros(2, np.int64)
    for _ in range(400):
        _, reward, terminated, truncated, info = env.step(generator.integers(4, size=NUM_ENVS))
        np.testing.assert_allclose(reward, info["cumulants"] @ np.array(worth))
        gathered += info["cumulants"].sum()
        ends += terminated.sum(), truncated.sum()
    assert gathered > 100
    assert (ends > 0).all()


def test_the_time_limit_truncates() -> None:
    env = GatheringVectorEnv(2, field=["....A"], worth=[1.0], max_episode_steps=3)
    env.reset(seed=0)
    env._cell[:] = 0
    ends = [env.step(np.full(2, LEFT))[3].tolist() for _ in range(5)]
    assert ends == [[False] * 2, [False] * 2, [True] * 2, [False] * 2, [False] * 2]


def test_tasks_of_unlike_worth_walk_alike() -> None:
    one, other = GatheringVectorEnv(NUM_ENVS, [1.0, 0.0]), GatheringVectorEnv(NUM_ENVS, [0.0, 9.0])
    np.testing.assert_array_equal(one.reset(seed=5)[0], other.reset(seed=5)[0])
    generator = np.random.default_rng(0)
    for _ in range(100):
        action = generator.integers(4, size=NUM_ENVS)
        first, second = one.step(action), other.step(action)
        for place in (0, 2, 3):
            np.testing.assert_array_equal(first[place], second[place])


def test_a_state_continues_exactly() -> None:
    first, second = GatheringVectorEnv(NUM_ENVS), GatheringVectorEnv(NUM_ENVS)
    first.reset(seed=1)
    second.reset(seed=2)
    generator = np.random.default_rng(0)
    actions = generator.integers(4, size=(80, NUM_ENVS))
    for action in actions[:40]:
        first.step(action)
    second.set_state(first.get_state())
    for action in actions[40:]:
        np.testing.assert_array_equal(first.step(action)[0], second.step(action)[0])


def test_the_optimum_of_a_row_is_that_worked_out_by_hand() -> None:
    field = tabulate(("A.B",))
    q_values = optimal_q(field.mdp(np.array([1.0, 0.0]), 0.5))
    # In the middle with both left: left gathers at once, right comes back in two steps more.
    number = field.observation.tolist().index([0.0, 1.0, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(q_values[number], [0.5, 0.25, 0.5, 1.0])


def test_a_single_one_is_a_sound_environment_and_shows_pictures() -> None:
    env = gymnasium.make(ENV_ID, render_mode="rgb_array", worth=[1.0, 2.0])
    assert isinstance(env.unwrapped, GatheringEnv)
    check_env(env.unwrapped, skip_render_check=True)
    _, info = env.reset(seed=0)
    assert info["cumulants"].tolist() == [0.0, 0.0]
    picture: Any = env.render()
    assert picture.shape == (192, 192, 3)
    # The ground, two kinds and the walker.
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"worth": [1.0]}, "worth"),
        ({"field": ["A.", "B"]}, "field"),
        ({"field": ["AB"]}, "field"),
        ({"field": [".."]}, "field"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        GatheringVectorEnv(**options)


@pytest.mark.parametrize("actions", [[0] * (NUM_ENVS - 1), [4] * NUM_ENVS, [-1] * NUM_ENVS])
def test_other_actions_are_refused(actions: list[int]) -> None:
    env = GatheringVectorEnv(NUM_ENVS)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=complaint("actions")):
        env.step(np.array(actions))
