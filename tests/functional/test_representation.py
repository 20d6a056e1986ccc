import math

import pytest
import torch
from helpers.asserts import assert_table
from torch import Tensor

from lit_mtdqn.functional.representation import dormant_share, effective_rank, policy_churn

# Mean activities 2, 1, 0.05, 0.95; their mean is 1.
ACTIVATIONS = torch.tensor([[1.0, -1.0, 0.1, 0.0], [-3.0, 1.0, 0.0, 1.9]])


@pytest.mark.parametrize(
    ("threshold", "share"), [(0.0, 0.0), (0.04, 0.0), (0.06, 0.25), (0.96, 0.5), (2.1, 1.0)]
)
def test_a_unit_is_dormant_beside_the_mean_of_its_layer(threshold: float, share: float) -> None:
    assert_table(dormant_share(ACTIVATIONS, threshold), share)
    assert_table(dormant_share(1e-6 * ACTIVATIONS, threshold), share)


def test_units_that_are_never_active_are_dormant_at_every_threshold() -> None:
    silent = torch.tensor([[0.0, 2.0], [0.0, 4.0]])
    assert_table(dormant_share(silent, 0.0), 0.5)
    assert_table(dormant_share(torch.zeros(3, 5)), 1.0)


def _spectrum(values: list[float], rows: int = 6) -> Tensor:
    """Return features with given singular values."""
    left = torch.linalg.qr(torch.randn(rows, len(values))).Q
    right = torch.linalg.qr(torch.randn(len(values), len(values))).Q
    features: Tensor = left @ torch.diag(torch.tensor(values)) @ right
    return features


@pytest.mark.parametrize(
    ("values", "delta", "rank"),
    [
        ([6.0, 3.0, 1.0], 0.5, 1),
        ([6.0, 3.0, 1.0], 0.2, 2),
        ([6.0, 3.0, 1.0], 0.05, 3),
        ([6.0, 3.0, 0.05], 0.01, 2),
        ([1.0, 1.0, 1.0, 1.0], 0.01, 4),
        ([7.0, 0.0, 0.0], 0.01, 1),
    ],
)
def test_the_rank_counts_the_largest_singular_values_that_hold_nearly_all(
    values: list[float], delta: float, rank: int
) -> None:
    features = _spectrum(values)
    assert_table(effective_rank(features, delta), rank)
    assert_table(effective_rank(1e3 * features.T, delta), rank)


def test_features_of_nothing_have_no_rank() -> None:
    assert_table(effective_rank(torch.zeros(4, 3)), 0.0)
    broken = torch.eye(3)
    broken[0, 0] = torch.nan
    assert math.isnan(effective_rank(broken))


def test_the_rank_of_half_precision_is_that_of_its_numbers() -> None:
    features = torch.eye(4, dtype=torch.bfloat16)
    assert_table(effective_rank(features), 4.0)


def test_churn_is_the_share_of_states_with_another_action() -> None:
    before = torch.tensor([[0, 1, 2], [2, 2, 2]])
    after = torch.tensor([[0, 2, 2], [1, 0, 2]])
    assert_table(policy_churn(before, after), 0.5)
    assert_table(policy_churn(before, before), 0.0)
