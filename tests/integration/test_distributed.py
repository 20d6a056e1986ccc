import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import helpers.distributed_run
import pytest
import torch
from helpers.asserts import assert_equal_tensors
from helpers.distributed_run import evaluation_data, untrained
from helpers.runs import quiet_trainer

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
    stopped = [torch.load(folder / f"stopped_{rank}.pt", weights_only=True) for rank in range(2)]
    shared = {"fisher": fisher["importance"], "stopped": stopped}
    return [{**rank, **shared} for rank in ranks]


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


@pytest.mark.parametrize("way", ["background", "resident"])
def test_ranks_that_play_elsewhere_play_apart_and_learn_as_one(way: str, ranks: list[Rank]) -> None:
    first, second = (rank[way] for rank in ranks)
    assert_equal_tensors(first["weights"], second["weights"])
    assert first["clock"] == second["clock"]
    assert first["clock"]["updates"] > 0
    assert not torch.isclose(first["observation"], second["observation"]).any(-1).all()


def test_the_clock_counts_the_env_steps_of_all_ranks_and_updates_once(ranks: list[Rank]) -> None:
    first, second = ranks
    assert first["clock"] == second["clock"]
    assert first["clocks"] == second["clocks"]
    steps = first["own_env_steps"] + second["own_env_steps"]
    assert first["clock"]["env_steps"] == {"cartpole": steps}
    assert 300 <= steps < 316
    assert first["clock"]["updates"] == 4 * first["clock"]["phases"] > 0


def test_metrics_are_of_all_ranks(ranks: list[Rank]) -> None:
    first, second = (rank["metrics"] for rank in ranks)
    assert first == second
    assert first.keys() >= {"train/td_loss", "rollout/epsilon/cartpole", "val/score/cartpole"}
    name = "rollout/episode_return/cartpole"
    own = [rank["episodes"][name]["values"] for rank in ranks]
    assert own[0] != own[1]
    both = [*own[0], *own[1]]
    assert first[name] == pytest.approx(sum(both) / len(both))


def test_ranks_test_what_one_process_would_to_the_last_bit(ranks: list[Rank]) -> None:
    data = evaluation_data()
    (alone,) = quiet_trainer().test(untrained(data), data, verbose=False)
    assert ranks[0]["tests"] == ranks[1]["tests"] == dict(alone)
    assert alone["test/episode_length/single"] > 0.0


def test_a_learner_of_returns_on_two_ranks_ends_with_equal_weights(ranks: list[Rank]) -> None:
    assert_equal_tensors(ranks[0]["pqn"], ranks[1]["pqn"])


def test_ranks_that_replay_by_priorities_of_their_own_end_with_equal_weights(
    ranks: list[Rank],
) -> None:
    first, second = (rank["prioritised"] for rank in ranks)
    assert_equal_tensors(first["weights"], second["weights"])
    assert not torch.equal(first["importance"], second["importance"])
    assert all(float(rank["importance"].min()) < 1.0 for rank in (first, second))


def test_ranks_leave_out_the_same_updates(ranks: list[Rank]) -> None:
    first, second = (rank["prioritised"] for rank in ranks)
    assert first["updates"] == second["updates"] == first["steps"] - 2


def test_ranks_skip_the_updates_of_which_one_has_no_numbers(ranks: list[Rank]) -> None:
    first, second = (rank["skipping"] for rank in ranks)
    assert_equal_tensors(first, second)
    assert first["skipped"] == first["tried"] - first["updates"] == 2
    assert all(bool(weights.isfinite().all()) for weights in first["weights"].values())


def test_all_ranks_stop_after_the_phase_in_which_one_was_told(ranks: list[Rank]) -> None:
    # Four updates a phase: the third one begins after eight.
    assert ranks[0]["stopped"] == [3, 3]


def test_gradients_are_reduced_by_the_strategy(ranks: list[Rank]) -> None:
    assert [rank["steps_directly"] for rank in ranks] == [False, False]


def test_what_mattered_is_the_mean_of_what_both_ranks_found(ranks: list[Rank]) -> None:
    first, second = (rank["own_fisher"] for rank in ranks)
    for name, written in ranks[0]["fisher"].items():
        torch.testing.assert_close(written, (first[name] + second[name]) / 2)
    assert any(not torch.isclose(first[name], second[name]).all() for name in first)
