from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint

from lit_mtdqn.networks import ImplicitQuantileHead, QuantileHead
from lit_mtdqn.types import Prediction, TaskInfo

TASK = TaskInfo(name="left", observation_shape=(4,), num_actions=2)
HEAD = QuantileHead([TASK], 4, num_quantiles=2)
KINDS = pytest.mark.parametrize("kind", [QuantileHead, ImplicitQuantileHead])


def _prediction(*quantiles: list[float]) -> Prediction:
    """Return one row, whose actions have the given quantiles."""
    output = torch.tensor([[list(quantiles)]])
    return Prediction(torch.empty(0), (), output, taus=HEAD.fractions(1))


def test_action_values_are_means_of_quantiles() -> None:
    assert_table(HEAD.q_values(_prediction([0.0, 1.0], [2.0, -1.0])), [[[0.5, 0.5]]])


def test_quantiles_are_those_of_middles() -> None:
    assert_table(HEAD.fractions(7), [[0.25, 0.75]])


def test_the_target_moves_the_quantiles_of_the_next_action() -> None:
    reward, discount = torch.tensor([[1.0]]), torch.tensor([[0.5]])
    following = _prediction([0.0, 4.0], [2.0, 6.0])
    target = HEAD.target(reward, discount, following, torch.tensor([[1]]))
    assert_table(target, [[[2.0, 4.0]]])


def test_a_policy_averages_quantile_by_quantile() -> None:
    reward, discount = torch.tensor([[1.0]]), torch.tensor([[0.5]])
    following = _prediction([0.0, 4.0], [2.0, 8.0])
    target = HEAD.target(reward, discount, following, torch.tensor([[[0.5, 0.5]]]))
    assert_table(target, [[[1.5, 4.0]]])


def test_the_loss_is_of_all_pairs_and_the_error_of_the_mean() -> None:
    prediction = _prediction([9.0, 9.0], [0.0, 1.0])
    target = torch.tensor([[[0.5, 3.0]]])
    loss, error = HEAD.loss(prediction, torch.tensor([[1]]), target)
    # From 0 at 0.25: errors 0.5 and 3; from 1 at 0.75: errors -0.5 and 2.
    low = (0.25 * 0.125 + 0.25 * 2.5) / 2
    high = (0.25 * 0.125 + 0.75 * 1.5) / 2
    assert_table(loss, [[low + high]])
    assert_table(error, [[1.75 - 0.5]])


@KINDS
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_deltas_of_zero_and_below_are_refused(kind: Any, value: float) -> None:
    with pytest.raises(ValueError, match=complaint("huber_delta")):
        kind([TASK], 4, huber_delta=value)


def test_a_head_without_quantiles_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("num_quantiles")):
        QuantileHead([TASK], 4, num_quantiles=0)
