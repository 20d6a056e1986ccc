import pytest
import torch
from helpers.asserts import assert_table

from lit_mtdqn.functional.gradients import (
    GroupParameters,
    as_gradients,
    as_matrix,
    gradient_cosines,
    group_means,
    look_ahead_affinity,
    look_ahead_steps,
    sums_by_task,
)


def test_copies_share_memory_and_are_leaves_of_their_own() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    copies = GroupParameters.of({"weight": weight}, 3)
    copy = copies["weight"]
    assert copy.shape == (3, 2)
    assert copy.is_leaf
    assert copy.requires_grad
    assert copy.data_ptr() == weight.data_ptr()
    (copy * torch.tensor([[1.0], [2.0], [4.0]])).sum().backward()  # type: ignore[no-untyped-call]
    assert copy.grad is not None
    assert_table(copy.grad, [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    assert weight.grad is None


def test_copies_serve_other_numbers_of_groups_by_the_first_of_them() -> None:
    copies = GroupParameters.of({"weight": torch.tensor([1.0, 2.0])}, 3)
    assert copies.for_groups(3) is copies
    further = copies.for_groups(2)["weight"]
    assert_table(further.detach(), [[1.0, 2.0], [1.0, 2.0]])
    (further * torch.tensor([[1.0], [10.0]])).sum().backward()  # type: ignore[no-untyped-call]
    assert_table(copies["weight"].grad, [[11.0, 11.0], [0.0, 0.0], [0.0, 0.0]])  # type: ignore[arg-type]


def test_means_of_groups_follow_their_numbers_in_any_order() -> None:
    means, present = group_means(torch.tensor([1.0, 2.0, 5.0, 7.0]), torch.tensor([4, 0, 4, 4]))
    assert present.tolist() == [0, 4]
    assert_table(means, [2.0, 13.0 / 3.0])


def test_the_mean_of_a_group_spreads_its_gradient_evenly() -> None:
    values = torch.tensor([1.0, 2.0, 5.0], requires_grad=True)
    means, _ = group_means(values, torch.tensor([1, 0, 1]))
    means[1].backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert_table(values.grad, [0.5, 0.0, 0.5])


def test_rows_of_one_task_are_summed() -> None:
    rows = torch.tensor([[1.0, 2.0], [10.0, 20.0], [3.0, 4.0]])
    found = sums_by_task(rows, torch.tensor([5, 2, 5]), torch.tensor([2, 5]))
    assert_table(found, [[10.0, 20.0], [4.0, 6.0]])


def test_a_row_of_the_matrix_goes_back_into_shape() -> None:
    parameters = [torch.zeros(2, 2), torch.zeros(3)]
    first = torch.arange(8.0).view(2, 2, 2)
    matrix = as_matrix([first, torch.tensor([[8.0, 9.0, 10.0], [11.0, 12.0, 13.0]])])
    assert_table(matrix, [[0, 1, 2, 3, 8, 9, 10], [4, 5, 6, 7, 11, 12, 13]])
    weight, bias = as_gradients(matrix[1], parameters)
    assert_table(weight, [[4, 5], [6, 7]])
    assert_table(bias, [11, 12, 13])


def test_cosines_see_directions_alone() -> None:
    matrix = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0], [1e-10, 1e-10], [0.0, 0.0]])
    half = 0.5**0.5
    assert_table(
        gradient_cosines(matrix),
        [
            [1.0, 0.0, -1.0, half, 0.0],
            [0.0, 1.0, 0.0, half, 0.0],
            [-1.0, 0.0, 1.0, -half, 0.0],
            [half, half, -half, 1.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0],
        ],
    )


def test_a_look_ahead_is_as_long_as_takes_its_share_of_the_loss_along_the_slope() -> None:
    loss, gradient = torch.tensor([2.0, 5.0]), torch.tensor([[3.0, 4.0], [0.0, -0.5]])
    steps = look_ahead_steps(loss, gradient, 0.1)
    assert_table(steps, [[-0.024, -0.032], [0.0, 1.0]])
    assert_table((steps * gradient).sum(1), -0.1 * loss)


@pytest.mark.parametrize(("loss", "gradient"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, 1e-30)])
def test_without_loss_or_slope_nobody_steps(loss: float, gradient: float) -> None:
    steps = look_ahead_steps(torch.tensor([loss]), torch.tensor([[gradient, 0.0]]), 0.1)
    assert steps.tolist() == [[0.0, 0.0]]


def test_affinity_is_the_loss_taken_away_by_the_steps_of_rows_from_the_tasks_of_columns() -> None:
    before = torch.tensor([2.0, 8.0, 0.0])
    after = torch.tensor([[1.8, 8.0, 0.0], [2.4, 7.2, 0.5], [2.0, 7.6, 0.0]])
    expected = [[1.0, 0.0, 0.0], [-2.0, 1.0, 0.0], [0.0, 0.5, 0.0]]
    assert_table(look_ahead_affinity(before, after, 0.1), expected)


@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_affinity_knows_no_unit(factor: float) -> None:
    before, after = torch.tensor([2.0, 8.0]), torch.tensor([[1.8, 8.4], [2.4, 7.2]])
    unit = torch.tensor([factor, 1.0])
    plain = look_ahead_affinity(before, after, 0.1)
    torch.testing.assert_close(look_ahead_affinity(unit * before, unit * after, 0.1), plain)
