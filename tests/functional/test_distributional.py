import math
from collections.abc import Callable
from itertools import pairwise
from statistics import NormalDist

import pytest
import torch
from helpers.asserts import assert_table
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_mtdqn.functional.distributional import (
    cross_entropy,
    expected_value,
    project_categorical,
    project_hl_gauss,
    quantile_huber_loss,
    quantile_midpoints,
)

SUPPORT = torch.tensor([0.0, 1.0, 2.0])
seeds = st.integers(0, 10_000)


def _distributions(seed: int, rows: int, atoms: int) -> Tensor:
    return torch.rand(rows, atoms, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def _uniform(seed: int, rows: int, low: float, high: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.empty(rows).uniform_(low, high, generator=generator)


def test_an_expectation_weighs_each_atom_with_its_probability() -> None:
    probabilities = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]])
    assert_table(expected_value(probabilities, SUPPORT), [0.0, 0.75])


@pytest.mark.parametrize(
    ("reward", "discount", "projected"),
    [
        # Atoms move to 0.5, 1 and 1.5.
        (0.5, 0.5, [0.25, 0.625, 0.125]),
        (0.0, 1.0, [0.5, 0.25, 0.25]),
        (1.0, 1.0, [0.0, 0.5, 0.5]),
        (1.25, 0.0, [0.0, 0.75, 0.25]),
        (2.0, 0.0, [0.0, 0.0, 1.0]),
        (99.0, 0.5, [0.0, 0.0, 1.0]),
        (-99.0, 0.5, [1.0, 0.0, 0.0]),
    ],
)
def test_moved_atoms_share_their_probability_between_neighbours(
    reward: float, discount: float, projected: list[float]
) -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25]])
    rows = torch.tensor([reward]), torch.tensor([discount])
    assert_table(project_categorical(probabilities, *rows, SUPPORT), [projected])


def _projected_by_loops(
    probabilities: list[float], reward: float, discount: float, support: list[float]
) -> list[float]:
    """Return what Bellemare et al. state as algorithm 1."""
    width = (support[-1] - support[0]) / (len(support) - 1)
    projected = [0.0] * len(support)
    for probability, atom in zip(probabilities, support, strict=True):
        moved = min(max(reward + discount * atom, support[0]), support[-1])
        place = (moved - support[0]) / width
        lower, upper = math.floor(place), math.ceil(place)
        if lower == upper:
            projected[lower] += probability
        else:
            projected[lower] += probability * (upper - place)
            projected[upper] += probability * (place - lower)
    return projected


@settings(max_examples=25, deadline=None)
@given(seed=seeds, atoms=st.integers(2, 12))
def test_the_categorical_projection_is_that_of_plain_loops(seed: int, atoms: int) -> None:
    probabilities = _distributions(seed, 6, atoms)
    reward, discount = _uniform(seed, 6, -4.0, 4.0), _uniform(seed + 1, 6, 0.0, 1.0)
    support = torch.linspace(-2.0, 3.0, atoms)
    rows = zip(probabilities.tolist(), reward.tolist(), discount.tolist(), strict=True)
    expected = torch.tensor([_projected_by_loops(*row, support.tolist()) for row in rows])
    projected = project_categorical(probabilities, reward, discount, support)
    torch.testing.assert_close(projected, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_a_projection_keeps_all_probability_wherever_atoms_move(seed: int) -> None:
    probabilities = _distributions(seed, 20, 51)
    reward, discount = _uniform(seed, 20, -30.0, 30.0), _uniform(seed + 1, 20, 0.0, 1.0)
    support = torch.linspace(-10.0, 10.0, 51)
    projected = project_categorical(probabilities, reward, discount, support)
    torch.testing.assert_close(projected.sum(-1), torch.ones(20))
    assert (projected >= 0.0).all()


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_a_projection_keeps_the_mean_of_what_stays_inside_the_support(seed: int) -> None:
    probabilities = _distributions(seed, 20, 51)
    reward, discount = _uniform(seed, 20, -2.0, 2.0), _uniform(seed + 1, 20, 0.0, 0.8)
    support = torch.linspace(-10.0, 10.0, 51)
    projected = project_categorical(probabilities, reward, discount, support)
    moved = reward + discount * expected_value(probabilities, support)
    torch.testing.assert_close(expected_value(projected, support), moved, rtol=1e-4, atol=1e-5)


def test_a_distribution_without_reward_and_discount_is_its_own_projection() -> None:
    probabilities = _distributions(0, 20, 51)
    support = torch.linspace(0.0, 100.0, 51)
    projected = project_categorical(probabilities, torch.zeros(20), torch.ones(20), support)
    torch.testing.assert_close(projected, probabilities, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("odd", range(4))
def test_a_categorical_projection_of_unlike_shapes_is_refused(odd: int) -> None:
    tensors = [torch.zeros(4, 3), torch.zeros(4), torch.zeros(4), SUPPORT]
    tensors[odd] = torch.zeros(4, 1)
    with pytest.raises(ValueError, match="must have shapes"):
        project_categorical(*tensors)


@pytest.mark.parametrize(
    ("target", "projected"),
    [
        (1.0, [0.5, 0.5]),
        # (Phi(1) - Phi(0), Phi(2) - Phi(1)) / (Phi(2) - Phi(0))
        (0.0, [0.71523, 0.28477]),
        (-50.0, [0.71523, 0.28477]),
        (2.0, [0.28477, 0.71523]),
        (50.0, [0.28477, 0.71523]),
    ],
)
def test_a_target_spreads_over_bins_as_a_normal_distribution_does(
    target: float, projected: list[float]
) -> None:
    found = project_hl_gauss(torch.tensor([target]), SUPPORT, sigma=1.0)
    torch.testing.assert_close(found, torch.tensor([projected]), rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, bins=st.integers(2, 20), sigma=st.floats(0.2, 2.0))
def test_the_spread_is_that_of_plain_loops(seed: int, bins: int, sigma: float) -> None:
    edges = torch.linspace(-2.0, 3.0, bins + 1)
    targets = _uniform(seed, 6, -3.0, 4.0)
    rows = []
    for target in targets.tolist():
        normal = NormalDist(min(max(target, -2.0), 3.0), sigma)
        reached = [normal.cdf(edge) for edge in edges.tolist()]
        mass = reached[-1] - reached[0]
        rows.append([(b - a) / mass for a, b in pairwise(reached)])
    found = project_hl_gauss(targets, edges, sigma)
    torch.testing.assert_close(found, torch.tensor(rows), rtol=1e-4, atol=1e-5)


def test_a_spread_target_keeps_its_mean_well_inside_the_support() -> None:
    edges = torch.linspace(-10.0, 10.0, 52)
    width = 20.0 / 51
    targets = torch.linspace(-10.0 + 4.0 * width, 10.0 - 4.0 * width, 101)
    projected = project_hl_gauss(targets, edges, 0.75 * width)
    middles = (edges[1:] + edges[:-1]) / 2
    torch.testing.assert_close(projected.sum(-1), torch.ones(101))
    torch.testing.assert_close(expected_value(projected, middles), targets, rtol=0.0, atol=2e-3)
    # Six bins hold nearly all of it.
    assert (projected.topk(6, dim=-1).values.sum(-1) > 0.99).all()


def test_a_target_at_an_end_comes_out_inside_by_four_fifths_of_sigma() -> None:
    edges = torch.linspace(-10.0, 10.0, 2001)
    projected = project_hl_gauss(torch.tensor([-10.0, 10.0]), edges, 0.5)
    mean = expected_value(projected, (edges[1:] + edges[:-1]) / 2)
    shift = math.sqrt(2.0 / math.pi) * 0.5
    torch.testing.assert_close(mean, torch.tensor([-10.0 + shift, 10.0 - shift]), atol=1e-3, rtol=0)


def test_the_cross_entropy_is_the_mean_surprise_of_the_target() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    target = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    second = -0.5 * math.log(0.75) - 0.5 * math.log(0.25)
    assert_table(cross_entropy(logits, target), [math.log(2.0), second])


def test_the_cross_entropy_is_least_at_the_target_and_pulls_by_the_difference() -> None:
    target = torch.tensor([[0.2, 0.3, 0.5]], requires_grad=True)
    logits = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    pulls = torch.autograd.grad(
        cross_entropy(logits, target).sum(), [logits, target], allow_unused=True
    )
    assert_table(pulls[0], (logits.softmax(-1) - target).detach())
    assert pulls[1] is None
    best = cross_entropy(target.detach().log(), target)
    assert (best < cross_entropy(logits, target)).all()


def test_a_cross_entropy_of_unlike_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        cross_entropy(torch.zeros(4, 2), torch.zeros(2))


@pytest.mark.parametrize(("count", "middles"), [(1, [0.5]), (4, [0.125, 0.375, 0.625, 0.875])])
def test_midpoints_halve_equal_parts(count: int, middles: list[float]) -> None:
    assert_table(quantile_midpoints(count), middles)


@pytest.mark.parametrize(
    ("huber_delta", "loss"),
    [
        # Errors 2 and -0.5; weights 0.25 and 0.75; Huber losses 1.5 and 0.125.
        (1.0, (0.25 * 1.5 + 0.75 * 0.125) / 2),
        (2.0, (0.25 * 2.0 + 0.75 * 0.125) / 2 / 2),
        (0.5, (0.25 * 0.875 + 0.75 * 0.125) / 2 / 0.5),
    ],
)
def test_a_quantile_pays_its_fraction_above_and_the_rest_below(
    huber_delta: float, loss: float
) -> None:
    prediction, target = torch.tensor([[0.0]]), torch.tensor([[2.0, -0.5]])
    fractions = torch.tensor([0.25])
    found = quantile_huber_loss(prediction, fractions, target, huber_delta=huber_delta)
    assert_table(found, [loss])


def _quantile_loss_by_loops(
    prediction: Tensor, fractions: Tensor, target: Tensor, delta: float
) -> float:
    total = 0.0
    for value, fraction in zip(prediction.tolist(), fractions.tolist(), strict=True):
        for sample in target.tolist():
            error = sample - value
            small = abs(error) <= delta
            huber = 0.5 * error**2 if small else delta * (abs(error) - 0.5 * delta)
            total += abs(fraction - float(error < 0.0)) * huber / delta / len(target)
    return total


@settings(max_examples=25, deadline=None)
@given(seed=seeds, delta=st.floats(0.1, 3.0), own=st.integers(1, 6), theirs=st.integers(1, 6))
def test_the_quantile_loss_is_that_of_plain_loops(
    seed: int, delta: float, own: int, theirs: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randn(2, 3, own, generator=generator)
    target = torch.randn(2, 3, theirs, generator=generator)
    fractions = torch.rand(3, own, generator=generator)
    found = quantile_huber_loss(prediction, fractions, target, huber_delta=delta)
    for group in range(2):
        for row in range(3):
            parts = prediction[group, row], fractions[row], target[group, row]
            assert float(found[group, row]) == pytest.approx(
                _quantile_loss_by_loops(*parts, delta), rel=1e-4, abs=1e-6
            )


def test_nothing_pulls_at_a_quantile_of_the_target() -> None:
    # A quarter of the samples lies below 0, at a distance that the Huber loss takes as large.
    target = torch.tensor([[-5.0, 5.0, 6.0, 7.0]])
    prediction = torch.zeros(1, 3, requires_grad=True)
    loss = quantile_huber_loss(
        prediction, torch.tensor([0.1, 0.25, 0.4]), target, huber_delta=1.0
    ).sum()
    (pull,) = torch.autograd.grad(loss, prediction)
    assert_table(pull, [[0.15, 0.0, -0.15]])


def test_the_target_of_a_quantile_loss_receives_no_gradient() -> None:
    prediction, target = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 3, requires_grad=True)
    loss = quantile_huber_loss(prediction, torch.tensor([0.3, 0.7]), target, huber_delta=1.0).sum()
    pulls = torch.autograd.grad(loss, [prediction, target], allow_unused=True)
    assert pulls[0] is not None
    assert pulls[1] is None


def test_a_quantile_loss_of_unlike_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="must differ in no leading axis"):
        quantile_huber_loss(torch.zeros(4, 2), torch.zeros(2), torch.zeros(1, 2), huber_delta=1.0)


HALF: list[Callable[[Tensor], Tensor]] = [
    lambda x: expected_value(x.softmax(-1), SUPPORT),
    lambda x: project_categorical(x.softmax(-1), x.sum(-1), x.sum(-1), SUPPORT),
    lambda x: project_hl_gauss(x, SUPPORT, 1.0),
    lambda x: cross_entropy(x, x.softmax(-1)),
    lambda x: quantile_huber_loss(x, SUPPORT.bfloat16(), x, huber_delta=1.0),
]


@pytest.mark.parametrize("function", HALF, ids=range(len(HALF)))
def test_results_are_float32_whatever_comes_in(function: Callable[[Tensor], Tensor]) -> None:
    half = torch.linspace(-1.0, 1.0, 6, dtype=torch.bfloat16).view(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast, plain = function(half.float()), function(half)
    assert autocast.dtype == plain.dtype == torch.float32
    assert torch.equal(autocast, function(half.float()))
