from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.functional.arrays import placed
from lit_mtdqn.functional.returns import fold_n_step, lambda_returns


class Row(NamedTuple):
    reward: float
    terminated: bool
    truncated: bool


class Column(NamedTuple):
    gamma: float
    n_step: int
    rows: list[Row]


class Fold(NamedTuple):
    reward: float
    discount: float
    last: int
    complete: bool


def fold_row_by_row(column: Column, start: int) -> Fold:
    """Fold one transition with a plain loop."""
    reward, discount, row = 0.0, 1.0, start
    for row in range(start, min(start + column.n_step, len(column.rows))):
        step = column.rows[row]
        reward += discount * step.reward
        discount *= column.gamma
        if step.terminated:
            return Fold(reward, 0.0, row, True)
        if step.truncated:
            return Fold(reward, discount, row, True)
    return Fold(reward, discount, row, row - start + 1 == column.n_step)


@st.composite
def windows(draw: st.DrawFn) -> list[Column]:
    length = draw(st.integers(1, 8))
    rarely = st.integers(0, 3).map(lambda number: number == 0)
    row = st.builds(Row, st.integers(-4, 4).map(float), rarely, rarely)
    rows = st.lists(row, min_size=length, max_size=length)
    gamma = st.sampled_from([0.0, 0.5, 0.9, 1.0])
    return draw(st.lists(st.builds(Column, gamma, st.integers(1, 6), rows), min_size=1, max_size=3))


@pytest.mark.parametrize("device", [None, "cpu"], ids=["arrays", "tensors"])
@settings(max_examples=100, deadline=None)
@given(window=windows())
def test_folding_equals_a_plain_loop_for_every_gamma_n_and_ending(
    device: str | None, window: list[Column]
) -> None:
    reward, terminated, truncated = (
        np.array([[row[field] for row in column.rows] for column in window]).T for field in range(3)
    )
    folded = fold_n_step(
        placed(reward, device),
        placed(terminated.astype(bool), device),
        placed(truncated.astype(bool), device),
        gamma=placed(np.array([column.gamma for column in window], np.float32), device),
        n_step=placed(np.array([column.n_step for column in window]), device),
        horizon=None if device is None else max(column.n_step for column in window),
    )
    for place, column in enumerate(window):
        folds = [fold_row_by_row(column, start) for start in range(len(column.rows))]
        expected = Fold(*np.array(folds, dtype=float).T)
        np.testing.assert_allclose(folded.reward[:, place], expected.reward, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(folded.discount[:, place], expected.discount, rtol=1e-5)
        np.testing.assert_array_equal(folded.last[:, place], expected.last)
        np.testing.assert_array_equal(folded.complete[:, place], expected.complete)


@pytest.mark.parametrize(
    ("ending", "discount"), [("terminated", [0.0, 0.0, 0.0]), ("truncated", [0.125, 0.25, 0.5])]
)
def test_truncation_bootstraps_but_termination_does_not(ending: str, discount: list[float]) -> None:
    flags: dict[str, Any] = {"terminated": np.zeros(3, bool), "truncated": np.zeros(3, bool)}
    flags[ending][-1] = True
    folded = fold_n_step(np.array([1.0, 2.0, 4.0]), **flags, gamma=0.5, n_step=5)
    np.testing.assert_array_equal(folded.reward, [3.0, 4.0, 4.0])
    np.testing.assert_array_equal(folded.discount, discount)
    np.testing.assert_array_equal(folded.complete, [True, True, True])


def test_a_row_that_is_both_terminated_and_truncated_is_terminated() -> None:
    ended = np.ones(1, bool)
    assert fold_n_step(np.ones(1), ended, ended, gamma=0.5, n_step=1).discount == 0.0


def test_folds_longer_than_the_window_wait_for_more_rows() -> None:
    none = np.zeros(3, bool)
    folded = fold_n_step(np.array([1.0, 2.0, 4.0]), none, none, gamma=0.5, n_step=10)
    np.testing.assert_array_equal(folded.complete, [False, False, False])
    np.testing.assert_array_equal(folded.last, [2, 2, 2])
    np.testing.assert_array_equal(folded.reward, [3.0, 4.0, 4.0])


def test_only_the_folds_that_reach_the_end_of_the_window_wait() -> None:
    none = np.zeros(4, bool)
    folded = fold_n_step(np.ones(4), none, none, gamma=1.0, n_step=2)
    np.testing.assert_array_equal(folded.complete, [True, True, True, False])
    np.testing.assert_array_equal(folded.last, [1, 2, 3, 3])


def test_one_step_folds_are_the_steps_themselves() -> None:
    reward = np.array([[1.0, -2.0], [3.0, 5.0]])
    terminated = np.array([[False, True], [False, False]])
    folded = fold_n_step(reward, terminated, ~terminated, gamma=0.25, n_step=1)
    np.testing.assert_array_equal(folded.reward, reward)
    np.testing.assert_array_equal(folded.discount, [[0.25, 0.0], [0.25, 0.25]])
    np.testing.assert_array_equal(folded.last, [[0, 0], [1, 1]])
    assert folded.complete.all()


def test_gamma_and_n_of_tasks_broadcast_over_their_environments() -> None:
    tasks, envs = 2, 3
    reward = np.ones((2, tasks, envs))
    none = np.zeros(reward.shape, bool)
    gamma, n_step = np.array([[0.5], [1.0]]), np.array([[1], [2]])
    folded = fold_n_step(reward, none, none, gamma=gamma, n_step=n_step)
    np.testing.assert_array_equal(folded.reward[0], [[1.0] * envs, [2.0] * envs])
    np.testing.assert_array_equal(folded.discount[0], [[0.5] * envs, [1.0] * envs])


def test_folding_leaves_its_input_alone() -> None:
    reward, ended = np.array([1.0, 2.0, 3.0]), np.array([False, True, False])
    fold_n_step(reward, ended, ended, gamma=0.9, n_step=3)
    np.testing.assert_array_equal(reward, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(ended, [False, True, False])


def _lambda_return_row_by_row(
    rows: list[tuple[float, float, float, bool]], start: int, decay: float
) -> float:
    """Return the mixture of n-step returns as it is defined: each n by its share."""
    reach = start
    while reach < len(rows) - 1 and rows[reach][3]:
        reach += 1
    mixture, share, so_far, discount = 0.0, 1.0, 0.0, 1.0
    for row in range(start, reach + 1):
        reward, factor, value, _ = rows[row]
        so_far += discount * reward
        discount *= factor
        own = share if row == reach else share * (1.0 - decay)
        mixture += own * (so_far + discount * value)
        share *= decay
    return mixture


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(-2.0, 2.0, width=32),
            st.sampled_from([0.0, 0.5, 0.9]),
            st.floats(-5.0, 5.0, width=32),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    ),
    decay=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_lambda_returns_mix_all_n_step_returns(
    rows: list[tuple[float, float, float, bool]], decay: float
) -> None:
    reward, discount, value = (torch.tensor([row[i] for row in rows]) for i in range(3))
    goes_on = torch.tensor([row[3] for row in rows])
    found = lambda_returns(reward, discount, value, goes_on, decay)
    wanted = [_lambda_return_row_by_row(rows, start, decay) for start in range(len(rows))]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_lambda_returns_by_hand() -> None:
    reward, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[10.0], [20.0], [40.0]])
    discount, goes_on = torch.full((3, 1), 0.5), torch.tensor([[True], [True], [True]])
    # 4 + 20, then 2 + 0.5 (0.75 x 20 + 0.25 x 24), then 1 + 0.5 (0.75 x 10 + 0.25 x 12.5).
    wanted = torch.tensor([[6.3125], [12.5], [24.0]])
    torch.testing.assert_close(lambda_returns(reward, discount, value, goes_on, 0.25), wanted)
