import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from helpers.asserts import assert_table, complaint
from torch import Tensor, nn

from lit_mtdqn.functional.alignment import (
    coral,
    domain_loss,
    median_distance,
    mmd_squared,
    reverse_gradient,
    similarity_weights,
    squared_distances,
)

Distance = Callable[[Tensor, Tensor], Tensor]
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def _column(*numbers: float) -> Tensor:
    return torch.tensor(numbers).unsqueeze(1)


def _sample(rows: int, seed: int, shift: float = 0.0, size: int = 3) -> Tensor:
    return shift + torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def _mmd_by_hand(source: Tensor, target: Tensor) -> float:
    """Return the estimate by loops over pairs, in double precision."""
    x, y = source.double().tolist(), target.double().tolist()

    def square(a: list[float], b: list[float]) -> float:
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    pairs = sorted(square(a, b) for a, b in combinations([*x, *y], 2))
    median = pairs[(len(pairs) - 1) // 2]

    def kernel(a: list[float], b: list[float]) -> float:
        return sum(math.exp(-square(a, b) / (width * median)) for width in WIDTHS) / len(WIDTHS)

    own, others = (
        sum(kernel(a, b) for a, b in combinations(rows, 2)) / math.comb(len(rows), 2)
        for rows in (x, y)
    )
    across = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return own + others - 2.0 * across


def test_the_median_of_three_points_is_that_of_their_three_distances() -> None:
    rows = _column(0.0, 1.0, 3.0)
    distances = squared_distances(rows)
    assert_table(distances, [[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]])
    assert_table(median_distance(rows, distances), 4.0)
    # The lower one of six: 1, 1, 4 | 4, 9, 16.
    rows = _column(0.0, 1.0, 2.0, 4.0)
    assert_table(median_distance(rows, squared_distances(rows)), 4.0)


def test_distances_keep_their_digits_far_from_zero() -> None:
    rows = _column(0.0, 1.0, 3.0) + 4096.0
    assert_table(squared_distances(rows), [[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]])


def test_the_discrepancy_of_four_points_is_what_a_hand_finds() -> None:
    # The median is 4: widths c m are 1, 2, 4, 8 and 16.
    kernel = {d: sum(math.exp(-d / width) for width in (1, 2, 4, 8, 16)) / 5 for d in (1, 4, 9, 16)}
    expected = kernel[1] + kernel[4] - 2 * (kernel[4] + kernel[16] + kernel[1] + kernel[9]) / 4
    assert_table(mmd_squared(_column(0.0, 1.0), _column(2.0, 4.0)), expected)


@pytest.mark.parametrize(("rows", "others"), [(2, 2), (2, 7), (9, 5)])
def test_the_discrepancy_is_that_of_loops_over_pairs(rows: int, others: int) -> None:
    source, target = _sample(rows, 0), _sample(others, 1, shift=0.7)
    expected = _mmd_by_hand(source, target)
    torch.testing.assert_close(mmd_squared(source, target).item(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mmd_squared(target, source).item(), expected, rtol=1e-5, atol=1e-6)


def test_the_discrepancy_depends_on_neither_unit_nor_origin() -> None:
    source, target = _sample(8, 0), _sample(6, 1, shift=0.7)
    moved = mmd_squared(1000.0 * source + 50.0, 1000.0 * target + 50.0)
    torch.testing.assert_close(moved, mmd_squared(source, target), rtol=1e-4, atol=1e-5)


def test_the_discrepancy_of_one_distribution_is_0_on_average() -> None:
    found = torch.stack([mmd_squared(_sample(6, s), _sample(6, s + 1_000)) for s in range(600)])
    error = float(found.std()) / len(found) ** 0.5
    assert abs(float(found.mean())) < 3.0 * error
    # A biased estimate would be off by about (2 - 2 E k(x, x')) / 6.
    assert error < 0.01


def test_far_samples_reach_the_largest_discrepancy() -> None:
    # Half of all pairs lie across, the median among them; the widest kernel is exp(-1/4) there.
    source, target = torch.zeros(20, 2), torch.full((20, 2), 1000.0)
    across = sum(math.exp(-1.0 / width) for width in WIDTHS) / 5
    assert_table(mmd_squared(source, target), 2.0 - 2.0 * across)


def test_descending_the_discrepancy_brings_the_samples_together() -> None:
    source, target = _sample(40, 0), _sample(40, 1)
    shift = nn.Parameter(torch.full((3,), 2.0))
    optimizer = torch.optim.Adam([shift], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        mmd_squared(source, target + shift).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    expected = source.mean(0) - target.mean(0)
    torch.testing.assert_close(shift.detach(), expected, rtol=0.0, atol=0.2)


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_features_that_are_all_alike_have_no_discrepancy_and_a_small_gradient(value: float) -> None:
    source = torch.full((5, 4), value, requires_grad=True)
    found = mmd_squared(source, torch.full((3, 4), value))
    found.backward()  # type: ignore[no-untyped-call]
    assert_table(found.detach(), 0.0)
    assert source.grad is not None
    assert float(source.grad.abs().max()) < 1.0


def test_covariances_are_compared_as_a_hand_does() -> None:
    # Covariances diag(2, 0) and diag(0, 8): (4 + 64) / (4 * 2^2).
    source = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    target = torch.tensor([[5.0, 1.0], [5.0, 5.0]])
    assert_table(coral(source, target), 4.25)


def test_covariances_are_those_of_torch() -> None:
    source, target = _sample(9, 0), 2.0 * _sample(6, 1, shift=3.0)
    expected = (source.T.cov() - target.T.cov()).square().sum() / (4 * 3**2)
    assert_table(coral(source, target), expected)
    assert_table(coral(source, source + 7.0), 0.0)


@pytest.mark.parametrize("distance", [mmd_squared, coral])
@pytest.mark.parametrize(("rows", "others", "name"), [(1, 4, "source"), (4, 1, "target")])
def test_samples_of_one_row_are_refused(
    distance: Distance, rows: int, others: int, name: str
) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        distance(_sample(rows, 0), _sample(others, 1))


@pytest.mark.parametrize("distance", [mmd_squared, coral])
def test_distances_keep_full_precision_under_autocast(distance: Distance) -> None:
    source, target = _sample(30, 0, size=16), _sample(30, 1, shift=0.2, size=16)
    expected = distance(source, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = distance(source, target)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    # Of rounded features too, the distance is not rounded again.
    assert distance(source.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_the_gradient_of_the_adversary_is_minus_lambda_times_the_classifiers() -> None:
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    gradients = []
    for factor in (None, 0.3):
        classifier.zero_grad()
        rows = [
            _sample(6, 0).requires_grad_(True),
            _sample(4, 1, shift=1.0).requires_grad_(True),
        ]
        seen = [row if factor is None else reverse_gradient(row, factor) for row in rows]
        domain_loss(*(classifier(row).squeeze(-1) for row in seen)).backward()  # type: ignore[no-untyped-call]
        gradients.append(([row.grad for row in rows], [p.grad for p in classifier.parameters()]))
    (plain, own), (reversed_, its_own) = gradients
    torch.testing.assert_close(its_own, own, rtol=0.0, atol=0.0)
    for gradient, other in zip(plain, reversed_, strict=True):
        assert gradient is not None
        assert float(gradient.abs().max()) > 0.0
        torch.testing.assert_close(other, -0.3 * gradient)


def test_reversed_values_are_the_values() -> None:
    values = _sample(2, 0)
    assert torch.equal(reverse_gradient(values, 2.0), values)


def test_both_domains_count_for_a_half_in_the_classifiers_loss() -> None:
    # softplus(0) = log 2 and softplus(-1) for one row each, however often they occur.
    expected = (math.log(2.0) + math.log1p(math.exp(-1.0))) / 2.0
    assert_table(domain_loss(torch.zeros(1), torch.ones(1)), expected)
    assert_table(domain_loss(torch.zeros(5), torch.ones(2)), expected)


def test_weights_of_sources_fall_with_their_discrepancy() -> None:
    # exp(-2 log 2) : exp(-2 log 4) = 1/4 : 1/16.
    mmd = torch.tensor([math.log(2.0), math.log(4.0)])
    assert_table(similarity_weights(mmd, 2.0), [0.8, 0.2])
    assert_table(similarity_weights(mmd, 0.0), [0.5, 0.5])
    assert_table(similarity_weights(mmd, 1e6), [1.0, 0.0])
