import torch
from helpers.asserts import assert_table

from lit_mtdqn.functional.anchoring import penalty_around

CENTRES = torch.tensor([[1.0, 2.0, 5.0], [3.0, -2.0, 5.0]])
IMPORTANCES = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]])


def test_a_penalty_and_its_gradient_are_those_computed_by_hand() -> None:
    parameters = torch.tensor([2.0, 0.0, 0.0], requires_grad=True)
    penalty = penalty_around(CENTRES[:1], IMPORTANCES[:1])(parameters)
    # Half of 1 (2 - 1)^2 + 2 (0 - 2)^2.
    assert_table(penalty.detach(), 4.5)
    assert_table(torch.autograd.grad(penalty, parameters)[0], [1.0, -4.0, 0.0])


def test_several_centres_are_the_sum_of_single_ones() -> None:
    together = penalty_around(CENTRES, IMPORTANCES)
    apart = [penalty_around(CENTRES[i : i + 1], IMPORTANCES[i : i + 1]) for i in range(2)]
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        parameters = torch.randn(3, generator=generator, requires_grad=True)
        value, expected = together(parameters), sum(one(parameters) for one in apart)
        torch.testing.assert_close(value, expected)
        gradients = [torch.autograd.grad(v, parameters)[0] for v in (value, expected)]  # type: ignore[arg-type]
        torch.testing.assert_close(*gradients)


def test_one_centre_costs_nothing_where_it_lies() -> None:
    penalty = penalty_around(CENTRES[:1], IMPORTANCES[:1])
    assert float(penalty(CENTRES[0])) == 0.0
    assert float(penalty_around(CENTRES, IMPORTANCES)(CENTRES[0])) > 0.0
