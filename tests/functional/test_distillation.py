import math
from typing import Any, get_args

import pytest
import torch
from helpers.asserts import assert_table
from torch.nn import functional as F

from lit_mtdqn.functional.distillation import (
    MatchKind,
    action_variance,
    agreement,
    match_loss,
    relative_temperature,
)

KINDS: tuple[Any, ...] = get_args(MatchKind)
LN2, LN3 = math.log(2.0), math.log(3.0)
# Softmaxes of 2/3, 1/3 and of 1/2, 1/2; at temperature 1/2 the first becomes 4/5, 1/5.
TEACHER, STUDENT = torch.tensor([[LN2, 0.0]]), torch.tensor([[7.0, 7.0]])


@pytest.mark.parametrize(
    ("kind", "temperature", "expected"),
    [
        ("policy_kl", 1.0, 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)),
        ("policy_kl", 0.5, 4 / 5 * math.log(8 / 5) + 1 / 5 * math.log(2 / 5)),
        ("value_kl", 0.5, 4 / 5 * math.log(8 / 5) + 1 / 5 * math.log(2 / 5)),
        ("nll", 0.5, LN2),
        ("mse", 0.5, ((7.0 - LN2) ** 2 + 49.0) / 2),
        ("softened_mse", 1.0, 2 * (1 / 6) ** 2),
        ("softened_mse", 0.5, 2 * (3 / 10) ** 2),
    ],
)
def test_distances_by_hand(kind: Any, temperature: float, expected: float) -> None:
    assert_table(match_loss(kind, STUDENT, TEACHER, temperature), [expected])


def test_only_value_students_are_divided_by_the_temperature() -> None:
    student = torch.tensor([[LN3, 0.0]])
    policy, value = (match_loss(kind, student, student, 0.5) for kind in ("policy_kl", "value_kl"))
    assert_table(value, [0.0])
    # Softmaxes of 9/10, 1/10 and of 3/4, 1/4.
    assert_table(policy, [0.9 * math.log(0.9 / 0.75) + 0.1 * math.log(0.1 / 0.25)])


@pytest.mark.parametrize("kind", KINDS)
def test_forbidden_actions_count_for_nothing(kind: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 4, generator=generator)
    mask = torch.tensor([True, False, True, True])
    expected = match_loss(kind, student[..., mask], teacher[..., mask], 0.7)
    student = student.masked_fill(~mask, 1e6).requires_grad_()
    found = match_loss(kind, student, teacher.masked_fill(~mask, -1e6), 0.7, mask)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), student)
    assert gradient.isfinite().all()
    assert (gradient[..., 1] == 0.0).all()
    assert (gradient[..., 0] != 0.0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_distances_of_one_allowed_action_are_0_or_of_its_value(kind: Any) -> None:
    mask = torch.tensor([False, True])
    found = match_loss(kind, STUDENT, TEACHER, 1.0, mask)
    assert_table(found, [49.0 if kind == "mse" else 0.0])


def test_divergences_are_those_of_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 4, generator=generator)
    inputs = student.log_softmax(-1), (teacher / 0.3).softmax(-1)
    expected = F.kl_div(*inputs, reduction="none").sum(-1)
    torch.testing.assert_close(match_loss("policy_kl", student, teacher, 0.3), expected)


@pytest.mark.parametrize("kind", ["value_kl", "softened_mse"])
def test_under_a_relative_temperature_the_unit_of_values_does_not_matter(kind: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 3, generator=generator)
    losses = [
        match_loss(kind, unit * student, unit * teacher, relative_temperature(unit * teacher, 0.5))
        for unit in (1.0, 1e-3, 1e4)
    ]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0])


def test_a_relative_temperature_is_a_multiple_of_the_median_gap_of_allowed_actions() -> None:
    # Gaps of 5, 3 and 90; of the first two actions 3, 2 and 9.
    rows = torch.tensor([[[1.0, 4.0, 9.0], [0.0, 2.0, 5.0], [0.0, 9.0, 99.0]]])
    assert_table(relative_temperature(rows, 0.5), [[[2.5]]])
    mask = torch.tensor([True, True, False])
    assert_table(relative_temperature(rows, 0.5, mask), [[[1.5]]])
    # The second row has no gap; the median of two is halfway between them.
    alone = torch.tensor([[True, True, True], [False, True, False], [True, True, True]])
    assert_table(relative_temperature(rows, 0.5, alone), [[[23.75]]])


def test_where_actions_are_alike_a_gap_is_the_least_that_tells_them_apart() -> None:
    # Two rows of three are alike: a thousandth of the 4 between the actions of the other.
    mostly = torch.tensor([[[1.0, 1.0, 1.0], [-9.0, -9.0, -9.0], [0.0, 2.0, 4.0]]])
    assert_table(relative_temperature(mostly, 0.5), [[[0.002]]])
    alike = torch.full((1, 3, 2), -4.0)
    assert_table(1e6 * relative_temperature(alike, 0.5), [[[2.0]]])
    none = torch.zeros(1, 3, 2)
    for mask in (None, torch.tensor([True, False])):
        assert float(relative_temperature(none, 0.5, mask)) > 0.0


def test_the_level_of_values_does_not_matter_to_a_relative_temperature() -> None:
    values = torch.tensor([[[0.0, 0.05, 0.1], [0.02, 0.0, 0.07]]])
    for level in (100.0, -1000.0):
        found = relative_temperature(values + level, 0.5)
        torch.testing.assert_close(found, relative_temperature(values, 0.5), rtol=5e-3, atol=0.0)


def test_sure_teachers_teach_without_overflow() -> None:
    teacher = torch.tensor([[[1e4, 0.0, -1e4]]])
    student = torch.zeros(1, 1, 3, requires_grad=True)
    for kind in KINDS:
        loss = match_loss(kind, student, teacher, 1e-3)
        (gradient,) = torch.autograd.grad(loss.sum(), student)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


def test_losses_are_float32_and_teachers_get_no_gradient() -> None:
    student = torch.zeros(1, 2, dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.ones(1, 2, dtype=torch.bfloat16, requires_grad=True)
    for kind in KINDS:
        loss = match_loss(kind, student, teacher, 1.0)
        assert loss.dtype == torch.float32
        loss.sum().backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is None


def test_actions_lie_apart_by_their_variance_in_the_mean_over_rows() -> None:
    # Variances of 8/3 and 0; of the first two actions 1 and 0.
    values = torch.tensor([[[5.0, 3.0, 1.0], [7.0, 7.0, 7.0]], [[80.0, 80.0, 80.0]] * 2])
    assert_table(action_variance(values), [[4 / 3], [0.0064]])
    mask = torch.tensor([True, True, False])
    assert_table(action_variance(values, mask), [[0.5], [0.0064]])
    assert (action_variance(torch.zeros(1, 2, 3)) > 0.0).all()
    unlike = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0))
    mean = unlike.mean(-1, keepdim=True).expand_as(unlike)
    found = match_loss("mse", mean, unlike, 1.0).mean(-1, keepdim=True)
    torch.testing.assert_close(found, action_variance(unlike))


def test_agreement_is_the_share_of_rows_with_one_best_action() -> None:
    student = torch.tensor([[[1.0, 2.0, 9.0], [2.0, 1.0, 9.0]]])
    teacher = torch.tensor([[[0.0, 1.0, 0.5], [0.0, 1.0, 0.5]]])
    assert_table(agreement(student, teacher), [0.0])
    assert_table(agreement(student, teacher, torch.tensor([True, True, False])), [0.5])
