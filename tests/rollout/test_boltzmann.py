from typing import Any

import numpy as np
import pytest
from helpers.asserts import complaint
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lit_mtdqn.rollout import Boltzmann

Array = NDArray[Any]
select = Boltzmann.draw
# The largest number below 1 that a generator draws.
ALMOST_ONE = 1.0 - 2.0**-53


def _grid(tasks: int, rows: int) -> Array:
    """Return evenly spread draws, [2, tasks, rows], so that frequencies are probabilities."""
    return np.broadcast_to((np.arange(rows) + 0.5) / rows, (2, tasks, rows))


def _frequencies(actions: Array, num_actions: int) -> Array:
    """Return how often each action occurs, [S, A]."""
    return np.stack([np.bincount(row, minlength=num_actions) / row.size for row in actions])


def test_probabilities_grow_with_the_exponential_of_values_and_each_task_has_its_temperature() -> (
    None
):
    values = np.broadcast_to(np.array([0.0, np.log(3.0), np.log(2.0)]), (2, 3600, 3))
    actions = select(values, np.ones((2, 1, 3), bool), np.array([1.0, 0.5]), _grid(2, 3600))
    expected = [[1 / 6, 3 / 6, 2 / 6], [1 / 14, 9 / 14, 4 / 14]]
    np.testing.assert_allclose(_frequencies(actions, 3), expected, atol=1e-3)


def test_actions_follow_the_second_draw_through_the_cumulated_probabilities() -> None:
    values, mask = np.zeros((1, 4, 2)), np.ones((1, 1, 2), bool)
    draws = np.array([[[0.9, 0.9, 0.1, 0.1]], [[0.0, 0.49, 0.5, ALMOST_ONE]]])
    assert select(values, mask, np.ones(1), draws).tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-3])
def test_a_cold_choice_is_greedy_among_allowed_actions(temperature: float) -> None:
    values = np.array([[[1.0, 3.0, 900.0], [7.0, -3.0, 900.0]]])
    mask = np.array([[[True, True, False]]])
    for draw in (0.0, 0.5, ALMOST_ONE):
        actions = select(values, mask, np.array([temperature]), np.full((2, 1, 2), draw))
        assert actions.tolist() == [[1, 0]]


@pytest.mark.parametrize("relative", [False, True])
def test_at_an_infinite_temperature_allowed_actions_are_equally_likely(relative: bool) -> None:
    values = np.random.default_rng(0).normal(size=(1, 300, 4))
    mask = np.array([[[True, False, True, True]]])
    actions = select(values, mask, np.array([np.inf]), _grid(1, 300), relative=relative)
    expected = [[1 / 3, 0.0, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(_frequencies(actions, 4), expected, atol=1e-2)


@given(
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.0, 0.1, 10.0, np.inf]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    draw=st.one_of(st.sampled_from([0.0, ALMOST_ONE]), st.floats(0.0, ALMOST_ONE)),
    relative=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_a_masked_action_is_never_taken(
    seed: int, temperature: float, shape: tuple[int, int, int], draw: float, relative: bool
) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random(shape) < 0.4
    mask[..., generator.integers(shape[-1])] = True
    values = np.where(mask, 10.0 * generator.normal(size=shape), 1e9).astype(np.float32)
    draws = np.full((2, *shape[:2]), draw)
    action = select(values, mask, np.full(shape[0], temperature), draws, relative=relative)
    assert np.take_along_axis(mask, action[..., None], -1).all()


def test_a_relative_temperature_makes_the_scale_of_values_irrelevant() -> None:
    values = np.random.default_rng(0).normal(size=(2, 500, 3))
    mask, draws = np.ones((2, 1, 3), bool), np.random.default_rng(1).random((2, 2, 500))
    temperature = np.array([0.5, 2.0])
    actions = [
        select(scale * values, mask, temperature, draws, relative=True) for scale in (0.01, 100.0)
    ]
    np.testing.assert_array_equal(actions[0], actions[1])
    first, second = np.sort(values, -1)[..., ::-1][..., :2].transpose(2, 0, 1)
    absolute = select(values, mask, temperature * (first - second).mean(-1), draws)
    np.testing.assert_array_equal(actions[0], absolute)


@pytest.mark.parametrize("num_actions", [1, 2])
def test_equal_values_have_no_gap_and_share_their_probability(num_actions: int) -> None:
    values, mask = np.full((1, 300, num_actions), 5.0), np.ones((1, 1, num_actions), bool)
    actions = select(values, mask, np.ones(1), _grid(1, 300), relative=True)
    expected = np.full((1, num_actions), 1 / num_actions)
    np.testing.assert_allclose(_frequencies(actions, num_actions), expected, atol=1e-2)


def test_any_allowed_action_is_taken_with_probability_epsilon() -> None:
    values, mask = np.array([[[0.0, 100.0, 300.0]] * 4]), np.array([[[True, True, False]]])
    draws = np.array([[[0.1, 0.1, 0.3, 0.3]], [[0.2, 0.7, 0.2, 0.7]]])
    actions = Boltzmann(temperature=0.1).act(values, mask, np.array([0.2]), draws)
    assert actions.tolist() == [[0, 1, 1, 1]]


def test_without_values_all_allowed_actions_are_alike() -> None:
    mask, grid = np.array([[[True, False, True]]]), _grid(1, 300)
    actions = Boltzmann().act(None, mask, np.ones(1), grid)
    np.testing.assert_allclose(_frequencies(actions, 3), [[0.5, 0.0, 0.5]], atol=1e-2)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("temperature")):
        Boltzmann(0.0)
