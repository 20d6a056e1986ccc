import math
from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch
from helpers.hand_backward import HandBackward, built, tasks
from torch import Tensor
from torchjd import scalarization

from lit_mtdqn.balancing import Scalarised, TaskLosses

BATCH = random_batch(tasks(2))


def _balancer(make: Any, count: int = 2, **options: Any) -> Scalarised:
    balancer = built(partial(Scalarised, scalarizer=make, **{"floor": 0.0, **options}), count)
    assert isinstance(balancer, Scalarised)
    return balancer


def _weights(balancer: Scalarised, *losses: float) -> Tensor:
    """Return the slope of the scalariser's number in each loss, after an update."""
    learner = HandBackward()
    given = learner.losses(*losses)
    balancer.accumulate(given, learner)
    learner.losses_after = given.loss.detach()
    balancer.on_update_end(BATCH, learner)
    weights = balancer.task_weights()
    assert weights is not None
    assert given.loss.grad is not None
    assert torch.equal(weights, given.loss.grad)
    return weights


def test_uncertainty_weighs_by_the_inverse_of_learned_variances() -> None:
    balancer = _balancer(scalarization.UW)
    (log_var,) = balancer.parameters()
    with torch.no_grad():
        log_var.copy_(torch.tensor([0.0, math.log(4.0)]))
    assert_table(_weights(balancer, 2.0, 8.0), [0.5, 0.125])
    assert log_var.grad is not None
    # 1/2 - 1/2 exp(-s) L: larger losses get larger variances.
    assert_table(log_var.grad, [-0.5, -0.5])


def test_imtl_l_scales_losses_by_learned_factors() -> None:
    balancer = _balancer(scalarization.IMTLL)
    (log_scale,) = balancer.parameters()
    with torch.no_grad():
        log_scale.copy_(torch.tensor([0.0, math.log(3.0)]))
    assert_table(_weights(balancer, 2.0, 8.0), [1.0, 3.0])
    assert log_scale.grad is not None
    # exp(s) L - 1: every scaled loss is drawn to 1.
    assert_table(log_scale.grad, [1.0, 23.0])


def test_dwa_weighs_by_how_slowly_mean_losses_fall() -> None:
    balancer = _balancer(scalarization.DWA, step_every_n_updates=2)
    for losses in ((1.0, 4.0), (3.0, 4.0), (1.0, 3.0), (1.0, 5.0)):
        assert_table(_weights(balancer, *losses), [1.0, 1.0])
    # Means fell from (2, 4) to (1, 4): rates 1/2 and 1, temperature 2.
    odds = math.exp((1.0 - 0.5) / 2.0)
    expected = [2.0 / (1.0 + odds), 2.0 * odds / (1.0 + odds)]
    assert_table(_weights(balancer, 7.0, 7.0), expected)


def test_famo_begins_with_equal_rates_and_then_favours_what_fell_less() -> None:
    balancer = _balancer(partial(scalarization.FAMO, lr=0.1, weight_decay=0.0))
    learner = HandBackward()
    losses = learner.losses(1.0, 4.0)
    balancer.accumulate(losses, learner)
    assert losses.loss.grad is not None
    # The gradient of c (log L1 + log L2) / 2 with c = 1 / mean(1 / L) = 8/5.
    assert_table(losses.loss.grad, [0.8, 0.2])
    learner.losses_after = torch.tensor([0.5, 4.0])
    balancer.on_update_end(BATCH, learner)
    # The first step of Adam is the learning rate along the sign: softmax of (-0.1, 0.1).
    share = 1.0 / (1.0 + math.exp(0.2))
    again = learner.losses(1.0, 1.0)
    balancer.accumulate(again, learner)
    assert again.loss.grad is not None
    assert_table(again.loss.grad, [share, 1.0 - share])


def test_famo_is_stepped_by_itself_alone() -> None:
    assert not any(p.requires_grad for p in _balancer(scalarization.FAMO).parameters())


@pytest.mark.parametrize(
    ("make", "weights"),
    [
        (scalarization.Mean, [0.5, 0.5]),
        (scalarization.Sum, [1.0, 1.0]),
        # The root of L1 L2 = 4, halved, over each loss.
        (scalarization.GeometricMean, [1.0, 0.25]),
    ],
)
def test_scalarisers_without_state_need_no_tasks(make: Any, weights: list[float]) -> None:
    assert_table(_weights(_balancer(make), 1.0, 4.0)[: len(weights)], weights)


RESUMED = pytest.mark.parametrize(
    "make",
    [scalarization.FAMO, scalarization.DWA, scalarization.UW],
    ids=lambda make: str(make.__name__),
)


def _remembering(make: Any) -> Scalarised:
    """Return a balancer with a past, within an epoch of `DWA` and after two of them."""
    balancer = _balancer(make, step_every_n_updates=2)
    for losses in ((1.0, 4.0), (3.0, 4.0), (1.0, 3.0), (1.0, 5.0), (2.0, 5.0)):
        _weights(balancer, *losses)
    return balancer


def _update_on_meta(balancer: Scalarised) -> None:
    learner = HandBackward()
    loss = torch.ones(2, device="meta", requires_grad=True)
    balancer.accumulate(TaskLosses(loss, torch.arange(2), None), learner)
    learner.losses_after = loss.detach()
    balancer.on_update_end(BATCH, learner)


@RESUMED
def test_what_was_saved_goes_on_on_the_device_that_the_balancer_is_moved_to(make: Any) -> None:
    """A checkpoint is read on the CPU, and the learner is moved afterwards."""
    balancer = _balancer(make, step_every_n_updates=2)
    balancer.load_state_dict(_remembering(make).state_dict())
    balancer.to("meta")
    for _ in range(2):
        _update_on_meta(balancer)


@RESUMED
def test_what_was_saved_goes_on_where_the_balancer_is_already(make: Any) -> None:
    balancer = _balancer(make).to("meta")
    _update_on_meta(balancer)
    balancer.set_extra_state(_remembering(make).get_extra_state())
    _update_on_meta(balancer)


@RESUMED
def test_a_balancer_that_was_moved_makes_the_same_updates(make: Any) -> None:
    stayed, moved = _remembering(make), _remembering(make)
    moved.to("cpu")
    for losses in ((2.0, 3.0), (4.0, 1.0), (1.0, 1.0)):
        assert torch.equal(_weights(moved, *losses), _weights(stayed, *losses))


@pytest.mark.parametrize("change", [{"dtype": torch.float64}, {"device": "meta"}])
def test_moments_of_famo_go_with_its_weights(change: dict[str, Any]) -> None:
    balancer = _remembering(scalarization.FAMO).to(**change)
    famo: Any = balancer.scalarizer
    balancer.place(famo._w.device)
    ((weights, moments),) = famo._optimizer.state.items()
    assert weights is famo._w
    for name in ("exp_avg", "exp_avg_sq"):
        assert (moments[name].device, moments[name].dtype) == (weights.device, weights.dtype)


def test_the_floor_bounds_the_slope_of_a_logarithm() -> None:
    balancer = _balancer(scalarization.FAMO, floor=0.5)
    # Losses of 0 and 1 count as 1/2 and 3/2, c = 1 / mean(2, 2/3) = 3/4.
    assert_table(_weights(balancer, 0.0, 1.0), [0.75, 0.25])


def test_what_is_added_is_added_to_the_number() -> None:
    learner = HandBackward()
    extra = torch.tensor(2.0, requires_grad=True)
    losses = learner.losses(1.0, 2.0)._replace(unbalanced=3.0 * extra)
    _balancer(scalarization.UW).accumulate(losses, learner)
    assert extra.grad is not None
    assert extra.grad.item() == 3.0


@pytest.mark.parametrize(
    ("options", "name"),
    [({"floor": -1.0}, "floor"), ({"step_every_n_updates": 0}, "step_every_n_updates")],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        _balancer(scalarization.Mean, **options)
