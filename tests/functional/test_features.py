import math

import pytest
import torch
from helpers.asserts import assert_no_gradient, assert_table

from lit_mtdqn.functional.features import attention_distance, attention_map, missed_share


def test_distances_are_shares_of_the_teachers_mean_square_in_its_group() -> None:
    teacher = torch.tensor([[[3.0, 4.0], [0.0, 5.0]], [[30.0, 40.0], [0.0, 50.0]]])
    found = teacher + torch.tensor([1.0, 2.0])
    # Both rows of the first group have a square of 25, those of the second 2500.
    assert_table(missed_share(found, teacher), [[0.2, 0.2], [0.002, 0.002]])
    assert_table(missed_share(torch.zeros_like(teacher), teacher), torch.ones(2, 2))
    assert_table(missed_share(teacher, teacher), torch.zeros(2, 2))


def test_a_teacher_that_shows_nothing_but_zeros_teaches_nothing() -> None:
    found = torch.ones(2, 1, 3, requires_grad=True)
    teacher = torch.stack([torch.zeros(1, 3), torch.full((1, 3), 2.0)])
    missed = missed_share(found, teacher)
    # (3 x 1) / (3 x 4) where it shows something.
    assert_table(missed.detach(), [[0.0], [0.25]])
    missed.sum().backward()  # type: ignore[no-untyped-call]
    assert found.grad is not None
    assert (found.grad[0] == 0.0).all()
    assert (found.grad[1] != 0.0).all()


def test_padding_on_both_sides_counts_for_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    found, teacher = torch.randn(2, 1, 5, 3, generator=generator)
    wide = [torch.nn.functional.pad(tensor, (0, 4)) for tensor in (found, teacher)]
    torch.testing.assert_close(missed_share(*wide), missed_share(found, teacher))


def test_a_teacher_without_any_activity_leaves_numbers() -> None:
    assert missed_share(torch.ones(1, 2, 3), torch.zeros(1, 2, 3)).isfinite().all()


def test_a_convolutions_map_sums_the_squares_of_its_channels_at_each_place() -> None:
    # Two channels of three places.
    layer = torch.tensor([[1.0, 0.0, 2.0], [2.0, 0.0, -1.0]]).view(1, 1, 2, 3)
    assert_table(attention_map(layer), [[[math.sqrt(0.5), 0.0, math.sqrt(0.5)]]])


def test_a_layer_without_places_has_a_number_for_each_unit() -> None:
    layer = torch.tensor([[[math.sqrt(3.0), -2.0]]])
    assert_table(attention_map(layer), [[[0.6, 0.8]]])


def test_maps_know_neither_sign_nor_scale_nor_the_number_of_channels() -> None:
    layer = torch.randn(2, 4, 3, 6, generator=torch.Generator().manual_seed(0))
    doubled = torch.cat([layer, layer], 2)
    assert_table(attention_distance(-7.0 * layer, layer), torch.zeros(2, 4))
    torch.testing.assert_close(attention_distance(doubled, layer), torch.zeros(2, 4))


def test_distances_run_from_0_to_2() -> None:
    one, other = torch.eye(3).view(3, 1, 3)[:2]
    assert_table(attention_distance(one[None], other[None]), [[2.0]])
    half = torch.tensor([[[1.0, 1.0, 0.0]]])
    assert_table(attention_distance(half, one[None]), [[2.0 - math.sqrt(2.0)]])


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(2, 1, 4, 3).requires_grad_().unbind(0)
    teacher = teacher.detach().requires_grad_()
    distance = missed_share(student, teacher) + attention_distance(student, teacher)
    torch.autograd.backward(distance.sum())
    assert_no_gradient([teacher])


def test_maps_of_unlike_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="must have maps of one shape"):
        attention_distance(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 4))
