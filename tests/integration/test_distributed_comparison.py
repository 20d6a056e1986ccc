"""Callbacks that compare tasks, on two ranks with unlike tasks in their minibatches."""

import helpers.distributed_comparison
import pytest
from helpers.distributed_comparison import GROUPS, compared
from helpers.two_ranks import found_by_ranks

NAMED = {"as_many": {"wide", "narrow", "third"}, "fewer": {"wide", "narrow"}}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, float]]]:
    """Return what two ranks have found, by what they had."""
    folder = tmp_path_factory.mktemp("ranks")
    return found_by_ranks(helpers.distributed_comparison, folder, timeout=240)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize("name", GROUPS)
def test_ranks_with_unlike_tasks_compare_them_as_one_process_with_all(
    name: str, ranks: list[dict[str, dict[str, float]]]
) -> None:
    joined = compared(name)
    assert {task for key in joined for task in key.split("/")[2:]} == NAMED[name]
    assert ranks[0][name] == ranks[1][name]
    # Affinities are differences of losses, of which seven digits are known.
    assert ranks[0][name] == pytest.approx(joined, rel=1e-3, abs=1e-3)
