from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lit_mtdqn.rollout.exploration import EpsilonGreedy, ExplorationDraws
from lit_mtdqn.types import Linear

Array = NDArray[Any]


def select(
    q_values: Array | None,
    mask: Array,
    epsilon: Array,
    generator: np.random.Generator,
    num_envs: int | None = None,
) -> Array:
    """Return actions by numbers that a generator draws."""
    rows = mask.shape[1] if q_values is None else q_values.shape[1]
    draws = generator.random((2, len(mask), num_envs or rows))
    action: Array = EpsilonGreedy.select(q_values, mask, epsilon, draws)
    return action


def _frequencies(actions: Array, num_actions: int) -> Array:
    """Return how often each action occurs, [S, A]."""
    return np.stack([np.bincount(row, minlength=num_actions) / row.size for row in actions])


def test_without_exploration_the_best_allowed_action_is_taken() -> None:
    values = np.array([[[1.0, 3.0, 2.0], [9.0, 3.0, 4.0]], [[-1.0, -2.0, 5.0], [0.0, 0.0, 5.0]]])
    mask = np.array([[[1, 1, 1], [0, 1, 1]], [[1, 1, 0], [1, 1, 0]]], bool)
    for seed in range(20):
        action = select(values, mask, np.zeros(2), np.random.default_rng(seed))
        assert action.tolist() == [[1, 2], [0, 0]]


def test_random_actions_are_spread_evenly_over_the_allowed_ones() -> None:
    mask = np.broadcast_to(np.array([[[1, 1, 1, 0]], [[0, 1, 0, 1]]], bool), (2, 40_000, 4))
    action = select(None, mask, np.ones(2), np.random.default_rng(0))
    expected = [[1 / 3, 1 / 3, 1 / 3, 0.0], [0.0, 0.5, 0.0, 0.5]]
    # Five standard deviations of a frequency of one half in 40000 draws.
    np.testing.assert_allclose(_frequencies(action, 4), expected, atol=5 * 0.5 / 200)
    assert not (action[0] == 3).any()
    assert np.isin(action[1], [1, 3]).all()


def test_epsilon_is_the_share_of_random_actions_and_each_task_has_its_own() -> None:
    values = np.broadcast_to(np.array([0.0, 1.0]), (3, 40_000, 2))
    epsilon = np.array([0.0, 0.3, 0.8])
    action = select(values, np.ones((3, 1, 2), bool), epsilon, np.random.default_rng(0))
    # Half of the random actions are the greedy one.
    np.testing.assert_allclose((action == 0).mean(1), epsilon / 2, atol=5 * 0.5 / 200)
    assert (action[0] == 1).all()


@pytest.mark.parametrize("epsilon", [0.5, 1.0])
def test_environments_draw_independently_of_one_another(epsilon: float) -> None:
    generator = np.random.default_rng(0)
    values = np.broadcast_to(np.array([0.0, 1.0]), (2, 2, 2))
    mask = np.ones((2, 1, 2), bool)
    steps = [select(values, mask, np.full(2, epsilon), generator).ravel() for _ in range(10_000)]
    correlation = np.corrcoef(np.stack(steps, 1)) - np.eye(4)
    assert np.abs(correlation).max() < 5 / 100


@given(
    seed=st.integers(0, 2**32),
    epsilon=st.sampled_from([0.0, 0.4, 1.0]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
)
@settings(max_examples=50, deadline=None)
def test_a_masked_action_is_never_taken(
    seed: int, epsilon: float, shape: tuple[int, int, int]
) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random(shape) < 0.4
    mask[..., generator.integers(shape[-1])] = True
    values = np.where(mask, generator.normal(size=shape), 1e9)
    action = select(values, mask, np.full(shape[0], epsilon), generator)
    assert np.take_along_axis(mask, action[..., None], -1).all()


def test_a_mask_by_task_serves_all_its_environments() -> None:
    mask = np.array([[[1, 1, 0]], [[0, 1, 1]]], bool)
    action = select(None, mask, np.ones(2), np.random.default_rng(0), num_envs=50)
    assert action.shape == (2, 50)
    assert set(action[0]) == {0, 1}
    assert set(action[1]) == {1, 2}


def test_the_second_number_picks_the_allowed_action_by_rank() -> None:
    mask = np.array([[[1, 0, 1, 1]]], bool)
    choices = np.array([0.0, 0.33, 0.34, 0.66, 0.67, 0.999])
    draws = np.stack([np.zeros((1, 6)), choices[None]])
    action = EpsilonGreedy.select(None, mask, np.ones(1), draws)
    assert action.tolist() == [[0, 0, 2, 2, 3, 3]]


def test_a_tasks_draws_depend_on_its_own_seed_alone() -> None:
    alone, beside = ExplorationDraws([7], 3), ExplorationDraws([5, 7], 3)
    for _ in range(2 * ExplorationDraws.BLOCK + 1):
        np.testing.assert_array_equal(alone()[:, 0], beside()[:, 1])


def test_no_draw_is_used_twice() -> None:
    draws = ExplorationDraws([0, 1], 2)
    steps = np.stack([draws() for _ in range(3 * ExplorationDraws.BLOCK)])
    assert steps.shape[1:] == (2, 2, 2)
    assert len(np.unique(steps)) == steps.size
    assert 0.0 <= steps.min() < steps.max() < 1.0


def test_random_actions_are_the_same_with_and_without_values() -> None:
    mask = np.ones((2, 3, 4), bool)
    values = np.random.default_rng(0).normal(size=mask.shape)
    without, with_values = (
        select(found, mask, np.ones(2), np.random.default_rng(7)) for found in (None, values)
    )
    np.testing.assert_array_equal(without, with_values)


@pytest.mark.parametrize(("env_steps", "epsilon"), [(0, 1.0), (99, 1.0), (100, 0.2), (5_000, 0.2)])
def test_epsilon_is_1_during_warm_up(env_steps: int, epsilon: float) -> None:
    assert EpsilonGreedy(0.2).epsilon_at(env_steps, warmup_env_steps=100) == epsilon


@pytest.mark.parametrize(("env_steps", "epsilon"), [(4, 1.0), (5, 0.5), (8, 0.2), (99, 0.0)])
def test_epsilon_follows_its_schedule_over_env_steps(env_steps: int, epsilon: float) -> None:
    exploration = EpsilonGreedy(Linear(start=1.0, end=0.0, duration=10))
    assert exploration.epsilon_at(env_steps, warmup_env_steps=5) == pytest.approx(epsilon)


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_tensors_give_the_actions_of_arrays(epsilon: float, masked: bool, asked: bool) -> None:
    generator = np.random.default_rng(0)
    mask = generator.random((3, 50, 6)) < 0.5 if masked else np.ones((3, 1, 6), bool)
    mask[..., 2] = True
    values = generator.normal(size=(3, 50, 6)).astype(np.float32) if asked else None
    arrays = (mask, np.full(3, epsilon), generator.random((2, 3, 50)))
    found = EpsilonGreedy.select(
        None if values is None else torch.from_numpy(values), *map(torch.from_numpy, arrays)
    )
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), EpsilonGreedy.select(values, *arrays))


def test_draws_on_a_device_are_a_tasks_own() -> None:
    device = torch.device("cpu")
    alone, beside = ExplorationDraws([7], 3, device), ExplorationDraws([5, 7], 3, device)
    steps = []
    for _ in range(ExplorationDraws.BLOCK + 1):
        steps.append(beside())
        assert torch.equal(alone()[:, 0], steps[-1][:, 1])
    assert steps[0].shape == (2, 2, 3)
    assert len(np.unique(torch.stack(steps).numpy())) == len(steps) * 12


@pytest.mark.parametrize("steps", [0, 1, 63, 64, 65])
def test_draws_go_on_from_a_saved_state(steps: int) -> None:
    first, second = ExplorationDraws([3, 4], 2), ExplorationDraws([5, 6], 2)
    for _ in range(steps):
        first()
    second()
    second.load_state_dict(first.state_dict())
    for _ in range(70):
        np.testing.assert_array_equal(first(), second())
