import math

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.heads import IQN
from torch import Tensor
from torch.nn import functional as F

from lit_mtdqn.networks import ImplicitQuantileHead
from lit_mtdqn.types import TaskInfo

SIZE = 6
TASKS = [
    TaskInfo(name=name, observation_shape=(SIZE,), num_actions=count)
    for name, count in (("left", 2), ("right", 3))
]
BOTH = torch.tensor([0, 1])


def _head(hidden: int = 0, seed: int = 0) -> ImplicitQuantileHead:
    torch.manual_seed(seed)
    head: ImplicitQuantileHead = IQN(TASKS, SIZE, hidden=hidden, init_scale=1.0)
    return head


def _by_loops(head: ImplicitQuantileHead, features: Tensor, fractions: Tensor) -> Tensor:
    """Return what equation 4 of the paper says, one fraction at a time, [S, B, A, Z]."""
    groups, rows = features.shape[:2]
    outputs = []
    for fraction in fractions.expand(rows, -1).T:
        frequencies = torch.arange(8.0)
        cosines = torch.cos(math.pi * frequencies * fraction.unsqueeze(-1))
        scaled = features * F.relu(head.embedding[0](cosines))
        if head.hidden:
            scaled = head.stream(scaled)
        outputs.append(head.values(scaled, torch.arange(groups)))
    return torch.stack(outputs, -1)


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("drawn", [False, True], ids=["middles", "drawn"])
def test_quantiles_come_from_features_scaled_by_embedded_fractions(
    hidden: int, drawn: bool
) -> None:
    head, features = _head(hidden), torch.randn(2, 4, SIZE)
    if drawn:
        head.resample_noise()
    expected = _by_loops(head, features, head.fractions(4))
    torch.testing.assert_close(head(features, BOTH), expected)


@pytest.mark.parametrize("hidden", [0, 5])
def test_gradients_are_those_of_the_loops(hidden: int) -> None:
    head, features = _head(hidden), torch.randn(2, 4, SIZE, requires_grad=True)
    head.resample_noise()
    inputs = [features, *head.parameters()]
    direction = torch.randn(2, 4, 3, 6)
    outputs = head(features, BOTH), _by_loops(head, features, head.fractions(4))
    found, expected = (torch.autograd.grad((o * direction).sum(), inputs) for o in outputs)
    torch.testing.assert_close(found, expected)


def test_acting_uses_the_middles_of_equal_parts() -> None:
    assert_table(_head().eval().fractions(9), [[0.125, 0.375, 0.625, 0.875]])


def test_online_and_target_networks_have_numbers_of_fractions_of_their_own() -> None:
    online, target = _head().train(), _head().eval()
    for head, count in ((online, 6), (target, 5)):
        head.resample_noise()
        assert head.fractions(9).shape == (9, count)


def test_fractions_hold_until_the_next_draw() -> None:
    head = _head().train()
    head.resample_noise()
    first = head.fractions(4)
    assert torch.equal(head.fractions(4), first)
    head.resample_noise()
    assert not torch.equal(head.fractions(4), first)


def test_a_draw_follows_its_generator() -> None:
    fractions = []
    for seed in (1, 1, 2):
        head = _head().train()
        head.resample_noise(torch.Generator().manual_seed(seed))
        fractions.append(head.fractions(4))
    assert torch.equal(fractions[0], fractions[1])
    assert not torch.equal(fractions[0], fractions[2])


def test_each_row_has_fractions_of_its_own_that_fill_the_unit_interval() -> None:
    head = _head().train()
    head.resample_noise()
    fractions = head.fractions(100)
    assert ((fractions >= 0.0) & (fractions < 1.0)).all()
    ordered = fractions.sort(0).values
    gaps = ordered.diff(dim=0)
    # Turns by the golden ratio leave gaps of three sizes, none above 1.9 times the mean.
    assert float(gaps.min()) > 0.3 / 100
    assert float(gaps.max()) < 1.9 / 100


def test_fractions_are_spread_evenly_over_draws() -> None:
    head = _head().train()
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(500):
        head.resample_noise(generator)
        drawn.append(head.fractions(3))
    fractions = torch.stack(drawn)
    # Five standard deviations of a mean of 500 uniform numbers.
    assert ((fractions.mean(0) - 0.5).abs() < 5 * 0.289 / math.sqrt(500)).all()


@pytest.mark.parametrize(
    "argument", ["num_fractions", "num_target_fractions", "num_acting_fractions", "num_cosines"]
)
def test_numbers_below_1_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=complaint(argument)):
        ImplicitQuantileHead(TASKS, SIZE, **{argument: 0})  # type: ignore[arg-type]
