"""Two ranks that align domains, now and then without a source on one of them."""

import os
import subprocess
import sys
from pathlib import Path

import helpers.distributed_align
import torch
from helpers.asserts import assert_equal_tensors
from helpers.distributed_align import OPTIONS


def test_ranks_that_draw_their_tasks_apart_end_with_equal_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, helpers.distributed_align.__file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank_{rank}.pt") for rank in range(2))
    for name in OPTIONS:
        assert_equal_tensors(first[name]["weights"], second[name]["weights"])
    pairs = set(zip(first["drawn"]["tasks"], second["drawn"]["tasks"], strict=True))
    assert {(0, 1), (1, 0)} & pairs
