from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.hand_backward import HandBackward, built
from torch import Tensor

from lit_mtdqn.balancing import GradNorm

# Lengths 5, 1 and 2.
JACOBIAN = [[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]]


def _balancer(count: Any = 3, **options: Any) -> GradNorm:
    balancer = built(partial(GradNorm, **{"floor": 1e-9, **options}), count)
    assert isinstance(balancer, GradNorm)
    return balancer


def _slope(balancer: GradNorm) -> Tensor:
    assert balancer.log_weight.grad is not None
    return balancer.log_weight.grad


def test_the_first_update_weighs_tasks_equally() -> None:
    learner = HandBackward(JACOBIAN)
    balancer = _balancer()
    balancer.accumulate(learner.losses(1.0, 2.0, 3.0), learner)
    assert_table(learner.filled, [4.0 / 3.0, 2.0 / 3.0])
    assert_table(balancer.first_loss, [1.0, 2.0, 3.0])


def test_without_alpha_all_lengths_are_drawn_to_their_mean() -> None:
    learner = HandBackward(JACOBIAN)
    balancer = _balancer(alpha=0.0)
    balancer.accumulate(learner.losses(1.0, 2.0, 3.0), learner)
    # In weights the slopes are sign(G - 8/3) G = (5, -1, -2); through w = 3 softmax(s) at 1/3
    # each they become (5, -1, -2) less their mean.
    assert_table(_slope(balancer), [5.0 - 2.0 / 3.0, -1.0 - 2.0 / 3.0, -2.0 - 2.0 / 3.0])


def _paper(weight: Tensor, lengths: Tensor, losses: Tensor, first: Tensor, alpha: float) -> Tensor:
    """Return equation 2 as the paper has it, with its target held."""
    length = weight * lengths
    ratio = losses / first
    target = (length.mean() * (ratio / ratio.mean()) ** alpha).detach()
    return (length - target).abs().sum()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_the_slope_is_that_of_equation_two(alpha: float) -> None:
    learner = HandBackward(JACOBIAN)
    balancer = _balancer(alpha=alpha)
    first, later = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.5, 1.9, 1.0])
    balancer.accumulate(learner.losses(*first.tolist()), learner)
    with torch.no_grad():
        balancer.log_weight.copy_(torch.tensor([0.3, -0.7, 0.1]))
    balancer.accumulate(learner.losses(*later.tolist()), learner)
    leaf = balancer.log_weight.detach().clone().requires_grad_(True)
    weight = 3.0 * leaf.softmax(0)
    lengths = torch.tensor([5.0, 1.0, 2.0])
    (expected,) = torch.autograd.grad(_paper(weight, lengths, later, first, alpha), leaf)
    torch.testing.assert_close(_slope(balancer), expected)
    mean = (weight.detach().unsqueeze(1) * learner.jacobian).mean(0)
    torch.testing.assert_close(learner.filled, mean)


def test_a_task_that_lags_is_granted_a_longer_gradient() -> None:
    learner = HandBackward([[1.0, 0.0], [0.0, 1.0]])
    balancer = _balancer(2)
    optimizer = torch.optim.SGD([balancer.log_weight], lr=0.01)
    for losses in ((1.0, 1.0), (0.1, 0.9)):
        balancer.accumulate(learner.losses(*losses), learner)
        optimizer.step()
    fast, slow = balancer.task_weights().tolist()
    assert fast < 1.0 < slow
    assert fast + slow == pytest.approx(2.0)


def test_lengths_are_those_of_all_shared_parameters() -> None:
    learner = HandBackward([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])
    balancer = _balancer(2, alpha=0.0)
    balancer.accumulate(learner.losses(1.0, 1.0), learner)
    # Lengths 5 and 1 around their mean 3; a softmax of two equal numbers halves each slope.
    assert_table(_slope(balancer), [(5.0 + 1.0) / 2, -(5.0 + 1.0) / 2])


def test_a_first_loss_of_zero_makes_no_infinite_laggard() -> None:
    learner = HandBackward(JACOBIAN)
    balancer = _balancer(floor=0.1)
    for losses in ((0.0, 1.0, 1.0), (0.4, 1.0, 1.0)):
        balancer.accumulate(learner.losses(*losses), learner)
    assert_table(balancer.first_loss, [0.1, 1.1, 1.1])
    assert bool(_slope(balancer).isfinite().all())


@pytest.mark.parametrize(("name", "value"), [("alpha", -0.1), ("lr", 0.0), ("floor", 0.0)])
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=complaint(f"GradNorm.{name}")):
        _balancer(**{name: value})
