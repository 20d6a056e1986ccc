import pytest
import torch
from helpers.asserts import assert_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.functional.shares import floored_softmax, gumbel_top_k

VALUES = st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("temperature", "floor", "expected"),
    [
        # exp(values / temperature) = (1, 2, 5) and (1, 4, 25).
        (1.0, 0.0, [1 / 8, 2 / 8, 5 / 8]),
        (0.5, 0.0, [1 / 30, 4 / 30, 25 / 30]),
        (1.0, 0.5, [1 / 6 + 1 / 16, 1 / 6 + 2 / 16, 1 / 6 + 5 / 16]),
        (1.0, 1.0, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_shares_are_a_softmax_above_a_floor(
    temperature: float, floor: float, expected: list[float]
) -> None:
    values = torch.tensor([1.0, 2.0, 5.0]).log()
    assert_table(floored_softmax(values, temperature, floor).float(), expected)


@given(values=VALUES, temperature=st.floats(0.01, 10.0), floor=st.floats(0.0, 1.0))
@settings(deadline=None)
def test_no_share_falls_below_the_floor(
    values: list[float], temperature: float, floor: float
) -> None:
    shares = floored_softmax(torch.tensor(values), temperature, floor)
    assert float(shares.sum()) == pytest.approx(1.0)
    assert float(shares.min()) >= floor / len(values) - 1e-12


def test_draws_without_replacement_have_the_probabilities_of_drawing_one_by_one() -> None:
    p = [0.5, 0.3, 0.2]
    drawn = gumbel_top_k(torch.tensor(p), 2, 40_000, torch.Generator().manual_seed(0))
    for first in range(3):
        for second in range(3):
            pair = (drawn == torch.tensor([first, second])).all(-1).double().mean()
            expected = 0.0 if first == second else p[first] * p[second] / (1 - p[first])
            # Five standard deviations of a share among 40 000.
            assert abs(float(pair) - expected) <= 5 * (expected / 40_000) ** 0.5


@given(values=VALUES, data=st.data())
@settings(deadline=None)
def test_the_entries_of_a_draw_are_unlike(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    probabilities = floored_softmax(torch.tensor(values), 1.0, 0.1)
    drawn = gumbel_top_k(probabilities, k, 6, torch.Generator().manual_seed(0))
    assert drawn.shape == (6, k)
    assert all(len(set(row)) == k for row in drawn.tolist())


def test_draws_follow_from_the_generator() -> None:
    p = torch.ones(5)
    draws = [gumbel_top_k(p, 3, 8, torch.Generator().manual_seed(s)).tolist() for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
