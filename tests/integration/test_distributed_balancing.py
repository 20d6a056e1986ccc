from collections.abc import Callable

import helpers.distributed_learners
import pytest
import torch
from helpers.asserts import assert_equal_tensors
from helpers.distributed_balancing import BALANCERS, NAMES, trained
from helpers.distributed_learners import LEARNERS, learned
from helpers.two_ranks import found_by_ranks
from torch import Tensor

Parameters = dict[str, Tensor]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Parameters]]:
    """Return what two ranks end with, by balancer and by learner."""
    folder = tmp_path_factory.mktemp("ranks")
    return found_by_ranks(helpers.distributed_learners, folder, timeout=150)


def _assert_one_process(
    ranks: list[Parameters], joined: Parameters, is_compared: Callable[[str], bool]
) -> None:
    """Assert that ranks agree, and with one process on the joined batch."""
    first, second = ranks
    assert_equal_tensors(first, second)
    assert joined.keys() == first.keys()
    for key in filter(is_compared, joined):
        torch.testing.assert_close(first[key], joined[key], rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_are_one_process_on_the_joined_batch(
    name: str, ranks: list[dict[str, Parameters]]
) -> None:
    _assert_one_process([rank[name] for rank in ranks], trained(name), lambda key: True)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_on_two_ranks_is_one_process_on_the_joined_batch(
    name: str, ranks: list[dict[str, Parameters]]
) -> None:
    joined = learned(name)
    # What is logged of ranks are means; not all of it is linear in rows.
    of_rows = [key for key in joined if not key.startswith(("metrics/health", "metrics/train/q_"))]
    assert any(key.startswith("metrics/train/") for key in of_rows)
    _assert_one_process([rank[name] for rank in ranks], joined, of_rows.__contains__)


def test_ranks_have_looked_at_their_tasks_together(ranks: list[dict[str, Parameters]]) -> None:
    assert ranks[0]["equal"].keys() >= {"affinity/wide/narrow", "gradients/cosine/wide/narrow"}


def test_balancers_lead_elsewhere(ranks: list[dict[str, Parameters]]) -> None:
    ends = [_torso(ranks[0][name]) for name in BALANCERS]
    for place, end in enumerate(ends):
        assert all(float((end - other).abs().max()) > 1e-4 for other in ends[:place])


def _torso(found: Parameters) -> Tensor:
    pieces = [value.flatten() for key, value in found.items() if key.startswith("network.torso")]
    return torch.cat(pieces)
