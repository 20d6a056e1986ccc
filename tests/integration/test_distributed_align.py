"""Two ranks with unlike tasks in an update: domains without a source, weights without a target."""

from pathlib import Path

import helpers.distributed_align
from helpers.asserts import assert_equal_tensors
from helpers.distributed_align import OPTIONS
from helpers.two_ranks import found_by_ranks


def test_ranks_that_draw_their_tasks_apart_end_with_equal_weights(tmp_path: Path) -> None:
    first, second = found_by_ranks(helpers.distributed_align, tmp_path, timeout=240)
    for name in OPTIONS:
        assert_equal_tensors(first[name]["weights"], second[name]["weights"])
        # Tasks that one rank alone has learned are among them.
        assert first[name]["metrics"] == second[name]["metrics"]
        assert first[name]["metrics"].keys() >= {"train/td_loss/near", "train/td_loss/other"}
    pairs = set(zip(first["drawn"]["tasks"], second["drawn"]["tasks"], strict=True))
    assert {(0, 1), (1, 0)} & pairs
    # Groups two by two: here one rank had both tasks of an update and the other one of them.
    halves = [rank["weighted"]["tasks"] for rank in (first, second)]
    updates = [list(zip(tasks[::2], tasks[1::2], strict=True)) for tasks in halves]
    assert any(len({*a}) != len({*b}) for a, b in zip(*updates, strict=True))
