from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_mtdqn.algorithms.numbers import of_finite_losses, report_non_finite
from lit_mtdqn.types import Losses, TaskInfo, Transition

K, S, B = 3, 2, 4
FILE = "non_finite_batch.pt"
TASKS = [TaskInfo(name=name, observation_shape=(2,), num_actions=2) for name in ("a", "b", "c")]


def _batches(reward: Tensor) -> list[Transition]:
    rows = torch.ones(K, S, B)
    observation = rows.unsqueeze(-1).expand(K, S, B, 2)
    whole = rows.long()
    task = torch.tensor([[2, 0]] * K)
    columns = (observation, whole, reward, rows, observation, rows, whole, task)
    return list(Transition(*columns, extra={}).minibatches())


def test_the_first_update_without_numbers_is_told_with_its_task(tmp_path: Path) -> None:
    errors = torch.ones(K, S, B)
    errors[1, 0, 2], errors[2] = -math.inf, math.nan
    found = report_non_finite(errors, _batches(torch.ones(K, S, B)), TASKS, 40, tmp_path / FILE)
    assert str(found) == (
        "`td_error` of task c must be finite. Got -inf in update 41, from the networks, not the "
        f"data; the minibatch is in {tmp_path / FILE}."
    )


def test_a_reward_that_is_no_number_is_told_as_the_cause(tmp_path: Path) -> None:
    errors, reward = torch.ones(K, S, B), torch.ones(K, S, B)
    errors[2, 1], reward[2, 1, 0] = math.nan, math.nan
    found = report_non_finite(errors, _batches(reward), TASKS, 1, tmp_path / FILE)
    assert "of task a" in str(found)
    assert "Got nan in update 3, from reward of its minibatch;" in str(found)


def test_the_minibatch_is_saved_by_itself(tmp_path: Path) -> None:
    errors, reward = torch.ones(K, S, B), torch.arange(24.0).view(K, S, B)
    errors[1, 0, 2] = math.nan
    report_non_finite(errors, _batches(reward), TASKS, 1, tmp_path / "run" / FILE)
    saved = torch.load(tmp_path / "run" / FILE, weights_only=True)
    assert torch.equal(saved["reward"], reward[1])
    assert torch.equal(saved["task"], torch.tensor([2, 0]))
    assert saved["update"] == 2
    assert saved["reward"].untyped_storage().nbytes() == 4 * S * B


def test_a_minibatch_that_cannot_be_saved_takes_the_place_of_no_error(tmp_path: Path) -> None:
    errors = torch.full((K, S, B), math.nan)
    (tmp_path / "run").write_text("in the way")
    file = tmp_path / "run" / FILE
    found = report_non_finite(errors, _batches(torch.ones(K, S, B)), TASKS, 1, file)
    assert "of task c must be finite. Got nan in update 1" in str(found)
    assert str(found).endswith(f"the minibatch cannot be written to {file} (File exists).")


def test_a_disk_without_room_leaves_no_half_of_a_minibatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, content: Any) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)
    errors = torch.full((K, S, B), math.nan)
    found = report_non_finite(errors, _batches(torch.ones(K, S, B)), TASKS, 1, tmp_path / FILE)
    assert "(No space left on device)" in str(found)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_whose_own_errors_are_numbers_says_that_others_are_not(tmp_path: Path) -> None:
    errors = torch.ones(K, S, B)
    batches = _batches(torch.ones(K, S, B))
    found = report_non_finite(errors, batches, TASKS, 1, tmp_path / FILE)
    assert str(found) == "`td_error` must be finite on all ranks. Got others on another one."
    assert not (tmp_path / FILE).exists()


def test_a_gradient_that_is_no_number_is_told_where_all_errors_are_some(tmp_path: Path) -> None:
    errors, file, norm = torch.ones(K, S, B), tmp_path / FILE, torch.tensor(math.inf)
    found = report_non_finite(errors, _batches(torch.ones(K, S, B)), TASKS, 40, file, norm)
    assert str(found) == (
        "`gradient` must be finite. Got one of norm inf in update 42, whose errors are finite; the "
        f"minibatch is in {file}."
    )
    assert torch.load(file, weights_only=True)["update"] == 42


def test_only_updates_whose_losses_are_numbers_are_told_of() -> None:
    batches = _batches(torch.arange(24.0).view(K, S, B))
    losses = [Losses(torch.full((S, B), float(k)), torch.ones(S, B), {}, {}) for k in range(K)]
    losses[1].td[1, 2] = math.inf
    kept, of_them = of_finite_losses(batches, losses)
    assert [int(batch.reward[0, 0]) for batch in kept] == [0, 16]
    assert [float(entry.td[0, 0]) for entry in of_them] == [0.0, 2.0]
