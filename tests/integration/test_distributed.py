import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import helpers.distributed_run
import pytest
import torch
from helpers.asserts import assert_equal_tensors

Rank = dict[str, Any]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Rank]:
    """Return what the two ranks of one run have written."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(helpers.distributed_run.__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(
        [sys.executable, str(script), str(folder)],
        env=environment,
        check=True,
        timeout=240,
        capture_output=True,
    )
    ranks = [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
    fisher = torch.load(folder / "checkpoints" / "fisher.pt", weights_only=True)
    return [{**rank, "fisher": fisher["importance"]} for rank in ranks]


def test_ranks_end_with_equal_weights(ranks: list[Rank]) -> None:
    first, second = ranks
    assert_equal_tensors(first["weights"], second["weights"])
    assert any(
        not torch.equal(first["weights"][name], first["weights"][f"target_{name}"])
        for name in first["weights"]
        if name.startswith("network.")
    )


def test_students_on_two_ranks_end_with_equal_weights(ranks: list[Rank]) -> None:
    first, second = (rank["student"] for rank in ranks)
    assert any("regressors" in name for name in first)
    assert_equal_tensors(first, second)


def test_ranks_play_different_episodes(ranks: list[Rank]) -> None:
    first, second = (rank["observation"] for rank in ranks)
    assert first.shape == second.shape == (4, 1, 4, 4)
    assert not torch.isclose(first, second).any(-1).all()


def test_the_clock_counts_the_env_steps_of_all_ranks_and_updates_once(ranks: list[Rank]) -> None:
    first, second = ranks
    assert first["clock"] == second["clock"]
    assert first["clocks"] == second["clocks"]
    steps = first["own_env_steps"] + second["own_env_steps"]
    assert first["clock"]["env_steps"] == {"cartpole": steps}
    assert 300 <= steps < 316
    assert first["clock"]["updates"] == 4 * first["clock"]["phases"] > 0


def test_ranks_evaluate_the_same_episodes(ranks: list[Rank]) -> None:
    first, second = (rank["metrics"] for rank in ranks)
    assert first["val/score/cartpole"] == second["val/score/cartpole"] > 0.0


def test_gradients_are_reduced_by_the_strategy(ranks: list[Rank]) -> None:
    assert [rank["steps_directly"] for rank in ranks] == [False, False]


def test_what_mattered_is_the_mean_of_what_both_ranks_found(ranks: list[Rank]) -> None:
    first, second = (rank["own_fisher"] for rank in ranks)
    for name, written in ranks[0]["fisher"].items():
        torch.testing.assert_close(written, (first[name] + second[name]) / 2)
    assert any(not torch.isclose(first[name], second[name]).all() for name in first)
