import math

import pytest
import torch
from helpers.asserts import assert_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.functional.policies import (
    log_policy,
    scaled_log_policy,
    soft_value,
    softmax_policy,
)

numbers = st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=6)
temperatures = st.floats(0.01, 10.0)


def test_probabilities_grow_with_the_exponential_of_values() -> None:
    q_values = torch.tensor([[0.0, 2.0 * math.log(3.0)]])
    assert_table(softmax_policy(q_values, 2.0), [[0.25, 0.75]])
    assert_table(scaled_log_policy(q_values, 2.0), [[2.0 * math.log(0.25), 2.0 * math.log(0.75)]])


def test_a_soft_value_is_the_policys_mean_and_its_entropy() -> None:
    q_values = torch.tensor([[0.0, 2.0 * math.log(3.0)]])
    assert_table(soft_value(q_values, 2.0), [2.0 * math.log(4.0)])
    policy = softmax_policy(q_values, 2.0)
    mean = (policy * q_values).sum(-1) + 2.0 * torch.special.entr(policy).sum(-1)
    torch.testing.assert_close(soft_value(q_values, 2.0), mean)
    assert_table(soft_value(q_values, 2.0, torch.tensor([True, False])), [0.0])
    assert_table(soft_value(q_values, 1e-3), [2.0 * math.log(3.0)])


def test_forbidden_actions_have_no_probability_whatever_their_value() -> None:
    q_values, mask = torch.tensor([[1.0, 1.0, 900.0]]), torch.tensor([[True, True, False]])
    assert_table(softmax_policy(q_values, 0.03, mask), [[0.5, 0.5, 0.0]])
    scaled = scaled_log_policy(q_values, 0.03, mask)
    assert_table(scaled, [[0.03 * math.log(0.5)] * 2 + [-math.inf]])
    assert_table(log_policy(q_values, mask), [[math.log(0.5)] * 2 + [0.0]])


@settings(max_examples=30, deadline=None)
@given(numbers, temperatures)
def test_a_policy_sums_to_one_and_its_logarithm_agrees(
    values: list[float], temperature: float
) -> None:
    q_values = torch.tensor(values)
    policy = softmax_policy(q_values, temperature)
    assert float(policy.sum()) == pytest.approx(1.0, abs=1e-5)
    log_policy = scaled_log_policy(q_values, temperature)
    assert (log_policy <= 0.0).all()
    torch.testing.assert_close((log_policy / temperature).exp(), policy, rtol=1e-3, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(numbers, st.floats(-5.0, 5.0), temperatures)
def test_a_constant_added_to_all_values_changes_no_policy(
    values: list[float], shift: float, temperature: float
) -> None:
    q_values = torch.tensor(values)
    shifted = scaled_log_policy(q_values + shift, temperature)
    torch.testing.assert_close(shifted, scaled_log_policy(q_values, temperature), atol=1e-4, rtol=0)


def test_a_cold_policy_is_greedy_and_its_scaled_logarithm_is_the_advantage() -> None:
    q_values = torch.tensor([[1.0, 3.0, 2.5]])
    assert_table(softmax_policy(q_values, 1e-3), [[0.0, 1.0, 0.0]])
    assert_table(scaled_log_policy(q_values, 1e-3), [[-2.0, 0.0, -0.5]])


def test_a_hot_policy_is_uniform() -> None:
    policy = softmax_policy(torch.tensor([[1.0, 3.0, 2.5, -9.0]]), 1e7)
    torch.testing.assert_close(policy, torch.full((1, 4), 0.25))


def test_policies_are_float32() -> None:
    q_values = torch.ones(1, 3, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert softmax_policy(q_values, 0.1).dtype == torch.float32
        assert scaled_log_policy(q_values, 0.1).dtype == torch.float32
