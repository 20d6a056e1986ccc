"""Runs that are killed at any moment, again and again, and always go on."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killed_runs import arguments, kill_once, run_to_its_end, updates_of, write_config
from torch import Tensor
from torch.utils._pytree import tree_flatten


def _left(run_dir: Path) -> tuple[str, Any, list[Any]]:
    """Return the metrics of a run, and all that its last checkpoint and its replays hold."""
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    leaves, structure = tree_flatten(checkpoint)
    replays = sorted((run_dir / "replay").rglob("*.memmap"))
    files = [(str(path.relative_to(run_dir)), path.read_bytes()) for path in replays]
    return (run_dir / "metrics.csv").read_text(), structure, [*leaves, *files]


def _assert_same(found: tuple[str, Any, list[Any]], whole: tuple[str, Any, list[Any]]) -> None:
    assert found[:2] == whole[:2]
    for one, other in zip(found[2], whole[2], strict=True):
        is_same = torch.equal(one, other) if isinstance(one, Tensor) else one == other
        assert is_same, (one, other)


@pytest.mark.parametrize(
    ("kills", "env_steps"),
    [
        pytest.param(3, 1200, marks=pytest.mark.slow),
        pytest.param(200, 40_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_a_run_that_is_killed_again_and_again_ends_as_the_one_that_never_was(
    kills: int, env_steps: int, tmp_path: Path
) -> None:
    config, run_dir = write_config(tmp_path, env_steps), tmp_path / "run"
    assert run_to_its_end(arguments(config, run_dir)).exit_code == 0
    whole = _left(run_dir)
    shutil.rmtree(run_dir)
    draw, finished = random.Random(kills), 0
    last = run_dir / "checkpoints" / "last.ckpt"
    for number in range(kills):
        # While it is built, before its first checkpoint, or after some and until the next.
        ended = kill_once(arguments(config, run_dir), draw.choice([1, 2, 3, 3, 4]), draw.random())
        assert ended.exit_code == -9, f"process {number} ended by itself"  # SIGKILL
        finished = max(finished, ended.finished.get(last.name, 0))
        for path in (run_dir / "checkpoints").glob("*.ckpt"):
            # A warning, and so a failure, if it were damaged and the one before it taken.
            found = updates_of(path)
            if path == last:
                assert found >= finished, f"process {number} has lost a finished checkpoint"
                finished = found
        assert last.exists() == (finished > 0)
    assert finished > 0
    assert run_to_its_end(arguments(config, run_dir)).exit_code == 0
    _assert_same(_left(run_dir), whole)
