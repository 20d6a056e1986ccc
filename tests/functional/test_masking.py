import pytest
import torch
from helpers.asserts import assert_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.functional.masking import mask_actions, padded_action_mask

INF = float("inf")


@pytest.mark.parametrize(
    ("num_actions", "mask"),
    [
        ([2], [[True, True]]),
        ([1, 3], [[True, False, False], [True, True, True]]),
        ([3, 2, 3], [[True, True, True], [True, True, False], [True, True, True]]),
    ],
)
def test_each_task_has_its_first_actions(num_actions: list[int], mask: list[list[bool]]) -> None:
    assert padded_action_mask(num_actions).tolist() == mask


def test_forbidden_actions_are_minus_infinity_and_allowed_ones_unchanged() -> None:
    q_values = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
    mask = torch.tensor([[True, True, False], [False, True, True]])
    assert_table(mask_actions(q_values, mask), [[1.0, -2.0, -INF], [-INF, 5.0, -6.0]])


def test_a_mask_of_groups_broadcasts_over_rows() -> None:
    q_values = torch.ones(2, 3, 2)
    mask = padded_action_mask([1, 2]).unsqueeze(1)
    masked = mask_actions(q_values, mask)
    assert masked.shape == q_values.shape
    assert (masked[0, :, 1] == -INF).all()
    assert (masked[1] == 1.0).all()


def test_masking_leaves_its_input_alone() -> None:
    q_values = torch.ones(1, 2)
    mask_actions(q_values, torch.tensor([True, False]))
    assert torch.equal(q_values, torch.ones(1, 2))


def test_no_mask_allows_everything() -> None:
    q_values = torch.randn(2, 3)
    assert torch.equal(mask_actions(q_values, None), q_values)


@given(
    num_actions=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    rows=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_masked_values_are_those_of_a_loop_over_all_actions(
    num_actions: list[int], rows: int, seed: int
) -> None:
    size = max(num_actions)
    generator = torch.Generator().manual_seed(seed)
    q_values = torch.randn(len(num_actions), rows, size, generator=generator)
    masked = mask_actions(q_values, padded_action_mask(num_actions).unsqueeze(1))
    for task, own in enumerate(num_actions):
        for row in range(rows):
            expected = [float(q_values[task, row, a]) if a < own else -INF for a in range(size)]
            assert masked[task, row].tolist() == expected
