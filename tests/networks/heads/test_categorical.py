import math
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from torch import Tensor

from lit_mtdqn.functional.distributional import project_hl_gauss
from lit_mtdqn.networks import C51Head, HLGaussHead
from lit_mtdqn.types import Prediction, TaskInfo

TASK = TaskInfo(name="left", observation_shape=(4,), num_actions=2)
C51 = C51Head([TASK], 4, num_atoms=3, v_min=0.0, v_max=2.0)
HL_GAUSS = HLGaussHead([TASK], 4, num_bins=4, v_min=-2.0, v_max=2.0)
KINDS = pytest.mark.parametrize("kind", [C51Head, HLGaussHead])


def _prediction(*distributions: list[float]) -> Prediction:
    """Return one row, whose actions have the given distributions."""
    probabilities = torch.tensor([[list(distributions)]])
    return Prediction(torch.empty(0), (), (probabilities + 1e-30).log())


def _row(number: float) -> Tensor:
    return torch.tensor([[number]])


def test_atoms_are_equally_spaced_from_end_to_end() -> None:
    assert_table(C51.support, [0.0, 1.0, 2.0])


def test_bins_stand_for_their_middles() -> None:
    assert_table(HL_GAUSS.edges, [-2.0, -1.0, 0.0, 1.0, 2.0])
    assert_table(HL_GAUSS.support, [-1.5, -0.5, 0.5, 1.5])
    assert HL_GAUSS.sigma == 0.75


def test_action_values_are_expectations() -> None:
    values = C51.q_values(_prediction([0.25, 0.25, 0.5], [1.0, 0.0, 0.0]))
    assert_table(values, [[[1.25, 0.0]]])
    # The mean, not the middle of the likeliest bin.
    values = HL_GAUSS.q_values(_prediction([0.0, 0.0, 0.6, 0.4], [0.5, 0.0, 0.0, 0.5]))
    assert_table(values, [[[0.9, 0.0]]])


def test_the_target_of_c51_is_the_moved_distribution_of_the_next_action() -> None:
    following = _prediction([0.0, 0.0, 1.0], [0.5, 0.25, 0.25])
    target = C51.target(_row(0.5), _row(0.5), following, torch.tensor([[1]]))
    assert_table(target, [[[0.25, 0.625, 0.125]]])


def test_a_policy_mixes_the_distributions_of_its_actions() -> None:
    following = _prediction([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    policy = torch.tensor([[[0.25, 0.75]]])
    assert_table(C51.target(_row(0.0), _row(1.0), following, policy), [[[0.25, 0.0, 0.75]]])


def test_the_target_of_hl_gauss_surrounds_the_target_value() -> None:
    following = _prediction([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0])
    reward, discount = _row(-0.25), _row(0.5)
    greedy = HL_GAUSS.target(reward, discount, following, torch.tensor([[1]]))
    assert_table(greedy, project_hl_gauss(_row(0.0), HL_GAUSS.edges, 0.75))
    policy = torch.tensor([[[0.5, 0.5]]])
    mixed = HL_GAUSS.target(reward, discount, following, policy)
    assert_table(mixed, project_hl_gauss(_row(0.25), HL_GAUSS.edges, 0.75))


def test_the_loss_is_the_cross_entropy_of_the_chosen_action_and_its_own_priority() -> None:
    prediction = _prediction([1.0, 0.0, 0.0], [0.25, 0.5, 0.25])
    target = torch.tensor([[[0.0, 0.5, 0.5]]])
    loss, error = C51.loss(prediction, torch.tensor([[1]]), target)
    assert_table(loss, [[-0.5 * math.log(0.5) - 0.5 * math.log(0.25)]])
    assert torch.equal(error, loss)


def test_losses_are_float32_whatever_the_precision_of_the_output() -> None:
    for head in (C51, HL_GAUSS):
        output = torch.ones(1, 1, 2, len(head.support), dtype=torch.bfloat16)
        prediction = Prediction(torch.empty(0), (), output)
        target = head.target(_row(1.0), _row(1.0), prediction, torch.tensor([[1]]))
        loss, error = head.loss(prediction, torch.tensor([[1]]), target)
        values = head.q_values(prediction)
        assert {t.dtype for t in (target, loss, error, values)} == {torch.float32}


@KINDS
def test_an_empty_support_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=complaint("v_min")):
        kind([TASK], 4, v_min=1.0, v_max=1.0)


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [(C51Head, "num_atoms", 1), (HLGaussHead, "num_bins", 1), (HLGaussHead, "sigma_ratio", 0.0)],
)
def test_arguments_out_of_range_are_refused(kind: Any, argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=complaint(argument)):
        kind([TASK], 4, **{argument: value})
