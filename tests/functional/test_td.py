import pytest
import torch
from helpers.asserts import assert_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.functional.td import (
    action_gap,
    follow,
    gather_actions,
    greedy_actions,
    regression_loss,
    td_target,
)

errors = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("discount", "target"),
    [(0.0, [1.0, -2.0, 0.0]), (0.5, [3.0, -4.0, 0.5]), (1.0, [5.0, -6.0, 1.0])],
)
def test_the_target_is_the_reward_plus_the_discounted_next_value(
    discount: float, target: list[float]
) -> None:
    reward = torch.tensor([1.0, -2.0, 0.0])
    next_value = torch.tensor([4.0, -4.0, 1.0])
    assert_table(td_target(reward, torch.full((3,), discount), next_value), target)


def test_each_row_of_a_target_has_its_own_discount() -> None:
    discount = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    target = td_target(torch.ones(2, 2), discount, torch.full((2, 2), 8.0))
    assert_table(target, [[1.0, 5.0], [9.0, 3.0]])


@pytest.mark.parametrize("odd", range(3))
def test_a_target_of_unlike_shapes_is_refused(odd: int) -> None:
    tensors = [torch.zeros(4, 1) if place == odd else torch.zeros(4) for place in range(3)]
    with pytest.raises(ValueError, match="must have one shape"):
        td_target(*tensors)


def test_gathering_takes_the_value_of_each_rows_action() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    assert_table(gather_actions(values, torch.tensor([[0, 1], [1, 0]])), [[1.0, 4.0], [6.0, 7.0]])


def test_following_an_action_takes_its_number_or_its_row() -> None:
    rows = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    action = torch.tensor([1, 0])
    assert_table(follow(rows, action), [[3.0, 4.0], [5.0, 6.0]])
    assert_table(follow(rows[..., 0], action), [3.0, 5.0])


def test_following_a_policy_averages_over_actions() -> None:
    rows = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    policy = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    assert_table(follow(rows, policy), [[2.5, 3.5], [5.0, 6.0]])
    assert_table(follow(rows[..., 0], policy), [2.5, 5.0])


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)])
def test_following_a_certain_policy_is_following_its_action(shape: tuple[int, ...]) -> None:
    values, action = torch.randn(shape), torch.randint(4, (2, 3))
    policy = torch.nn.functional.one_hot(action, 4).float()
    torch.testing.assert_close(follow(values, policy), follow(values, action))


def test_the_greedy_action_is_the_first_of_the_largest() -> None:
    q_values = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0]])
    assert greedy_actions(q_values).tolist() == [1, 0]


def test_a_forbidden_action_is_never_greedy_however_large_its_value() -> None:
    q_values = torch.tensor([[-5.0, -1.0, 100.0], [-5.0, -9.0, 100.0]])
    assert greedy_actions(q_values, torch.tensor([True, True, False])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("huber_delta", "loss"),
    [
        (None, [0.125, 0.5, 2.0, 8.0]),
        (1.0, [0.125, 0.5, 1.5, 3.5]),
        (2.0, [0.125, 0.5, 2.0, 6.0]),
    ],
    ids=["squared", "delta 1", "delta 2"],
)
def test_the_loss_is_half_the_square_until_it_turns_linear(
    huber_delta: float | None, loss: list[float]
) -> None:
    prediction = torch.tensor([0.5, -1.0, 2.0, -4.0])
    assert_table(regression_loss(prediction, torch.zeros(4), huber_delta=huber_delta), loss)


@settings(max_examples=30, deadline=None)
@given(errors)
def test_a_huber_loss_of_a_large_delta_is_the_squared_loss(error: list[float]) -> None:
    prediction, target = torch.tensor(error), torch.zeros(len(error))
    squared = regression_loss(prediction, target, huber_delta=None)
    torch.testing.assert_close(regression_loss(prediction, target, huber_delta=11.0), squared)


def test_a_huber_loss_pulls_no_harder_than_its_delta() -> None:
    prediction = torch.tensor([0.25, -0.25, 50.0, -50.0], requires_grad=True)
    loss = regression_loss(prediction, torch.zeros(4), huber_delta=0.5).sum()
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert_table(gradient, [0.25, -0.25, 0.5, -0.5])


@pytest.mark.parametrize("huber_delta", [None, 1.0])
def test_the_target_of_a_loss_receives_no_gradient(huber_delta: float | None) -> None:
    prediction, target = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    loss = regression_loss(prediction, target, huber_delta=huber_delta).sum()
    pulls = torch.autograd.grad(loss, [prediction, target], allow_unused=True)
    assert pulls[0] is not None
    assert pulls[1] is None


def test_a_loss_of_unlike_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        regression_loss(torch.zeros(4), torch.zeros(4, 1), huber_delta=None)


def test_the_action_gap_is_the_best_value_minus_the_second() -> None:
    q_values = torch.tensor([[1.0, 4.0, 2.5], [-3.0, -1.0, -2.0], [7.0, 7.0, 0.0]])
    assert_table(action_gap(q_values), [1.5, 1.0, 0.0])


def test_the_action_gap_counts_allowed_actions_only() -> None:
    q_values = torch.tensor([[1.0, 4.0, 9.0], [3.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert_table(action_gap(q_values, mask), [3.0, 0.0])


def test_a_single_action_has_no_gap() -> None:
    assert_table(action_gap(torch.full((2, 3, 1), 5.0)), torch.zeros(2, 3))
