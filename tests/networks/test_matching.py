from functools import partial

import pytest
import torch
from helpers.asserts import complaint, count_parameters
from helpers.sharing import THREE, TORSO, network_of

from lit_mtdqn.networks import MLPTorso, QNetwork, matched_width


@pytest.mark.parametrize("name", ["none", "branch", "mask", "softmax", "cross_stitch", "lateral"])
def test_a_matched_trunk_is_as_wide_as_its_budget_allows(name: str) -> None:
    reference = network_of(name)
    before = torch.get_rng_state()
    width = matched_width(THREE, reference, TORSO)
    assert torch.equal(torch.get_rng_state(), before)

    def plain(multiplier: float) -> int:
        return count_parameters(QNetwork(THREE, partial(TORSO, width_multiplier=multiplier)))

    budget = count_parameters(reference)
    assert plain(width) <= budget
    assert any(plain(width + more) > budget for more in (0.05, 0.1, 0.2))
    assert (name == "none") == (plain(width) == plain(1.0))


def test_a_reference_smaller_than_any_trunk_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("reference")):
        matched_width(THREE, torch.nn.Linear(1, 1), MLPTorso)
