from typing import Any

import pytest
import torch
from torchjd import aggregation

from lit_mtdqn.balancing.state import load_numbers, numbers_of, place_numbers

META = torch.device("meta")
ROWS = torch.tensor([[1.0, 0.0], [-0.5, 1.0]])


def _resumed(make: Any) -> Any:
    """Return an aggregator that remembers what another one has seen."""
    first, second = make(), make()
    first(ROWS)
    first(ROWS)
    load_numbers(second, numbers_of(first))
    return second


def _devices(numbers: dict[str, Any]) -> set[str]:
    return {value.device.type for value in numbers.values() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize(
    "make",
    [
        aggregation.ExcessMTL,
        lambda: aggregation.GramianWeightedAggregator(aggregation.MoDoWeighting()),
        lambda: aggregation.GramianWeightedAggregator(aggregation.SDMGradWeighting()),
    ],
    ids=["ExcessMTL", "MoDo", "SDMGrad"],
)
def test_what_is_remembered_of_gradients_follows_them(make: Any) -> None:
    resumed = _resumed(make)
    before = numbers_of(resumed)
    place_numbers(resumed, META)
    after = numbers_of(resumed)
    assert _devices(after) == {"meta"}
    # Of its own, under which it would begin anew.
    keys = {name: value for name, value in after.items() if name.endswith("_state_key")}
    assert keys
    for name, key in keys.items():
        assert key == (*before[name][:-1], META)


@pytest.mark.parametrize("make", [aggregation.GradVac, aggregation.PCD])
def test_what_works_on_the_cpu_remembers_there(make: Any) -> None:
    resumed = _resumed(make)
    before = numbers_of(resumed)
    place_numbers(resumed, META)
    assert _devices(before) == _devices(numbers_of(resumed)) == {"cpu"}
