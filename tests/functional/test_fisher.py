import pytest
import torch
from helpers.asserts import assert_table

from lit_mtdqn.functional.fisher import fisher_sum, fisher_terms, normalised_importance
from lit_mtdqn.functional.gradients import GroupParameters

# Q(s, a) = s w_a: two states, two actions.
STATES, WEIGHTS = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5])


def _diagonal(kind: str, temperature: float = 1.0, mask: torch.Tensor | None = None) -> list[float]:
    copies = GroupParameters.of({"w": WEIGHTS}, len(STATES))
    q_values = STATES.unsqueeze(1) * copies["w"]
    terms, weights = fisher_terms(kind, q_values, temperature, mask)  # type: ignore[arg-type]
    found: list[float] = fisher_sum(terms, weights, [copies["w"]]).tolist()
    return found


def test_a_policys_diagonal_is_that_computed_by_hand() -> None:
    # d log pi(a) / d w_b = s (1[a = b] - pi(b)) / T; its mean square over actions is
    # (s / T)^2 pi(b) (1 - pi(b)), the same for both of two actions.
    gaps = {1.0: (0.5, 1.0), 0.25: (2.0, 4.0)}
    for temperature, by_state in gaps.items():
        shares = [1.0 / (1.0 + 2.718281828459045**gap) for gap in by_state]
        products = [p * (1.0 - p) for p in shares]
        expected = (products[0] + 4.0 * products[1]) / temperature**2
        assert _diagonal("policy", temperature) == pytest.approx([expected, expected])


def test_a_values_diagonal_is_the_mean_over_actions_of_squared_gradients() -> None:
    # d Q(s, a) / d w_b = s 1[a = b], half of the time.
    assert _diagonal("values") == pytest.approx([2.5, 2.5])


def test_forbidden_actions_count_for_nothing() -> None:
    mask = torch.tensor([[True, True], [False, True]])
    assert _diagonal("values", mask=mask) == pytest.approx([0.5, 0.5 + 4.0])
    alone = torch.tensor([[False, True], [False, True]])
    assert _diagonal("policy", mask=alone) == [0.0, 0.0]


def test_a_policys_diagonal_knows_neither_the_unit_nor_the_level_of_values() -> None:
    copies = GroupParameters.of({"w": WEIGHTS}, len(STATES))
    found = []
    for unit, level in ((1.0, 0.0), (50.0, -300.0)):
        q_values = unit * STATES.unsqueeze(1) * copies["w"] + level
        terms, weights = fisher_terms("policy", q_values, 0.5 * unit)
        found.append(fisher_sum(terms, weights, [copies["w"]]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=0.0)


def test_rows_that_pull_against_one_another_do_not_cancel() -> None:
    copies = GroupParameters.of({"w": torch.zeros(1)}, 2)
    terms = torch.tensor([[1.0], [-1.0]]) * copies["w"]
    assert_table(fisher_sum(terms, torch.ones(2, 1), [copies["w"]]), [2.0])


def test_normalised_importance_has_mean_1_where_it_counts_unless_there_is_none() -> None:
    importance, counted = torch.tensor([0.0, 2e-6, 6e-6, 4e-6]), torch.tensor([1, 1, 0, 1]).bool()
    assert_table(normalised_importance(importance, counted), [0.0, 1.0, 3.0, 2.0])
    nowhere = torch.tensor([0.0, 2.0])
    assert_table(normalised_importance(nowhere, torch.tensor([True, False])), [0.0, 2.0])
