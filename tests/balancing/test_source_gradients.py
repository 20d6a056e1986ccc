from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.hand_backward import HandBackward, built, tasks
from helpers.runs import COUNTING, NETWORK, fit, small_data
from torch import Tensor

from lit_mtdqn import MultiTaskDQN
from lit_mtdqn.balancing import SourceGradients
from lit_mtdqn.networks import QNetwork
from lit_mtdqn.types import Linear

# The target's gradient, one at 60 degrees of length 4, and one that opposes it.
JACOBIAN = [[3.0, 0.0], [2.0, 12.0**0.5], [-1.0, 5.0]]


def _balancer(count: int = 3, **options: Any) -> SourceGradients:
    balancer = built(partial(SourceGradients, **options), count)
    assert isinstance(balancer, SourceGradients)
    return balancer


def _filled(balancer: SourceGradients, jacobian: Any = JACOBIAN, unbalanced: Any = None) -> Tensor:
    learner = HandBackward(jacobian, unbalanced)
    balancer.accumulate(learner.losses(), learner)
    return learner.filled


@pytest.mark.parametrize(
    ("gate", "weights", "expected"),
    [
        ("sign", [1.0, 0.5, 0.0], [4.0, 3.0**0.5]),
        ("cosine", [1.0, 0.25, 0.0], [3.5, 0.75**0.5]),
        ("none", [1.0, 0.5, 0.5], [3.5, 2.5 + 3.0**0.5]),
    ],
)
def test_sources_count_as_far_as_the_gate_lets_them_through(
    gate: Any, weights: list[float], expected: list[float]
) -> None:
    balancer = _balancer(beta=0.5, gate=gate)
    assert balancer.task_weights() is None
    assert_table(_filled(balancer), expected)
    found = balancer.task_weights()
    assert found is not None
    assert_table(found, weights)


def test_any_task_may_be_the_target() -> None:
    # To the third, the second is a friend and the first is not.
    balancer = _balancer(target_task="t2")
    assert_table(_filled(balancer), [1.0, 5.0 + 12.0**0.5])


def test_what_is_added_is_added_afterwards() -> None:
    assert_table(_filled(_balancer(beta=0.0), unbalanced=[10.0, -1.0]), [13.0, -1.0])


def test_the_factor_may_fall_over_updates() -> None:
    balancer = _balancer(2, beta=Linear(start=1.0, end=0.0, duration=10), gate="none")
    learner = HandBackward(JACOBIAN[:2])
    for learner.updates, beta in ((0, 1.0), (5, 0.5), (10, 0.0)):
        balancer.accumulate(learner.losses(), learner)
        assert_table(learner.filled, [3.0 + 2.0 * beta, beta * 12.0**0.5])


@pytest.mark.parametrize(
    ("gate", "end"), [("sign", [1.0, 0.0]), ("cosine", [1.0, 0.0]), ("none", [0.0, 0.5])]
)
def test_a_gate_leads_to_where_the_target_is_best_and_the_plain_sum_does_not(
    gate: Any, end: list[float]
) -> None:
    # Bowls around (1, 0) and (-1, 1).
    middles = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    balancer, place = _balancer(2, gate=gate), torch.tensor([-4.0, 3.0])
    for _ in range(200):
        place = place - 0.1 * _filled(balancer, (place - middles).tolist())
    torch.testing.assert_close(place, torch.tensor(end), atol=1e-3, rtol=0)


def test_a_source_that_agrees_leads_there_sooner() -> None:
    middles = torch.tensor([[1.0, 0.0], [1.2, 0.0]])
    ends = []
    for beta in (0.0, 1.0):
        balancer, place = _balancer(2, beta=beta), torch.tensor([-4.0, 3.0])
        for _ in range(5):
            place = place - 0.1 * _filled(balancer, (place - middles).tolist())
        ends.append(float((place - middles[0]).norm()))
    assert ends[1] < 0.7 * ends[0]


def test_the_factor_follows_the_clock_of_a_run() -> None:
    data = small_data({"old": COUNTING, "new": COUNTING})
    fading = Linear(start=1.0, end=0.0, duration=1_000)
    balancer: Any = partial(SourceGradients, target_task="new", beta=fading, gate="none")
    model = MultiTaskDQN(data.task_infos, NETWORK, balancer=balancer)
    trainer = fit(data, model, log_every_n_steps=1)
    # Of the last update, before the clock has counted it.
    beta = fading(data.clock.updates - 1)
    shares = trainer.callback_metrics
    assert float(shares["train/task_weight/old"]) == pytest.approx(2.0 * beta / (1.0 + beta))
    assert float(shares["train/task_weight/new"]) == pytest.approx(2.0 / (1.0 + beta))


def test_an_update_without_one_of_the_tasks_is_refused() -> None:
    learner = HandBackward(JACOBIAN[:2])
    with pytest.raises(ValueError, match=complaint("data.sampler")):
        _balancer(3).accumulate(learner.losses(), learner)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"target_task": "t9"}, "target_task"),
        ({"beta": -1.0}, "beta"),
        ({"beta": Linear(1.0, -1.0, 9)}, "beta"),
        ({"gate": "open"}, "gate"),
    ],
    ids=str,
)
def test_an_argument_out_of_range_is_refused(options: Any, name: str) -> None:
    with pytest.raises(ValueError, match=complaint(f"SourceGradients.{name}")):
        _balancer(**options)


def test_one_task_alone_has_no_source() -> None:
    with pytest.raises(ValueError, match=complaint("SourceGradients.target_task")):
        SourceGradients(tasks(1), QNetwork(tasks(1)))
