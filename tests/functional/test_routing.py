import math

import pytest
import torch
from helpers.asserts import assert_table

from lit_mtdqn.functional.routing import (
    expert_usage,
    gram_schmidt,
    load_balance_loss,
    router_entropy,
    straight_through_one_hot,
)


def test_the_forward_pass_chooses_one_expert() -> None:
    logits = torch.tensor([[0.1, 0.3, 0.2], [5.0, -1.0, 0.0]])
    assert_table(straight_through_one_hot(logits, 1.0), [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_gradient_is_that_of_the_softmax(temperature: float) -> None:
    logits = torch.randn(5, 3, requires_grad=True)
    value = torch.randn(5, 3)
    (hard,) = torch.autograd.grad(
        (straight_through_one_hot(logits, temperature) * value).sum(), logits
    )
    (soft,) = torch.autograd.grad(((logits / temperature).softmax(-1) * value).sum(), logits)
    torch.testing.assert_close(hard, soft)


def test_with_gumbel_noise_choices_are_draws_from_the_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0])
    noise = -torch.empty(20_000, 3).exponential_().log()
    frequency = straight_through_one_hot(logits + noise, 1.0).mean(0)
    torch.testing.assert_close(frequency, logits.softmax(-1), rtol=0.0, atol=0.015)


@pytest.mark.parametrize(
    ("router", "loss"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 1.0),
        ([[1.0, 0.0], [1.0, 0.0]], 2.0),
        # Every row prefers the first expert, whose mean weight is 0.75: 2 * 1 * 0.75.
        ([[0.9, 0.1], [0.6, 0.4]], 1.5),
    ],
)
def test_the_balance_loss_is_1_for_equal_use_and_grows_with_unequal_use(
    router: list[list[float]], loss: float
) -> None:
    assert_table(load_balance_loss(torch.tensor(router)), loss)


def test_the_balance_loss_pushes_weight_away_from_the_most_used_expert() -> None:
    logits = torch.tensor([[[2.0, 0.0, 0.0]], [[1.0, 0.0, 0.5]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(load_balance_loss(logits.softmax(-1)), logits)
    assert (gradient[..., 0] > 0.0).all()
    assert (gradient[..., 1:] < 0.0).all()


def test_the_entropy_is_0_for_one_expert_and_log_e_for_all() -> None:
    router = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4])
    assert_table(router_entropy(router), [0.0, math.log(4.0)])


def test_the_usage_of_a_task_is_the_mean_over_its_rows_and_groups() -> None:
    router = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0]] * 2])
    usage = expert_usage(router, torch.tensor([2, 0, 2]), num_tasks=3)
    assert_table(usage, [[0.0, 1.0], [0.0, 0.0], [0.875, 0.125]])


def test_gram_schmidt_makes_orthonormal_vectors_like_those_of_a_qr_decomposition() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(4, 10, 16)
    found = gram_schmidt(vectors).transpose(0, 1)
    torch.testing.assert_close(found @ found.mT, torch.eye(4).expand(10, 4, 4))
    columns, triangle = torch.linalg.qr(vectors.permute(1, 2, 0))
    signs = torch.diagonal(triangle, dim1=-2, dim2=-1).sign()
    torch.testing.assert_close(found.mT, columns * signs.unsqueeze(1))


def test_gram_schmidt_of_two_vectors_by_hand() -> None:
    vectors = torch.tensor([[[3.0, 4.0]], [[5.0, 0.0]]])
    assert_table(gram_schmidt(vectors), [[[0.6, 0.8]], [[0.8, -0.6]]])


def test_vectors_that_depend_on_others_vanish_without_an_unbounded_gradient() -> None:
    vectors = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]], [[1.0, 0.0]]], requires_grad=True)
    found = gram_schmidt(vectors)
    assert_table(found.detach(), [[[0.6, 0.8]], [[0.0, 0.0]], [[0.8, -0.6]]])
    (gradient,) = torch.autograd.grad(found.sum(), vectors)
    assert gradient.isfinite().all()
