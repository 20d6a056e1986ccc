import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from helpers.asserts import complaint
from numpy.typing import NDArray

from lit_mtdqn.replay import Replay, StorageKind, check_folder, check_memory, replay_bytes

Array = NDArray[Any]
GIB = 2**30


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to have 10 GiB of memory and 100 GiB of disk left."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10 * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * GIB))


@pytest.mark.parametrize("labels", [0, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_the_size_is_that_of_the_stored_arrays(masked: bool, labels: int) -> None:
    rows: dict[str, Array] = {
        "observation": np.zeros((6, 4), np.float32),
        "action": np.zeros(6, np.int64),
        "reward": np.zeros(6, np.float32),
        "discount": np.zeros(6, np.float32),
        "next_observation": np.zeros((6, 4), np.float32),
    }
    if masked:
        rows |= {name: np.ones((6, 3), bool) for name in ("action_mask", "next_action_mask")}
    if labels:
        rows["label"] = np.zeros((6, labels), np.float32)
    replay = Replay(6, seed=0)
    replay.extend(rows)
    sample = replay.sample(6)
    stored = sum(sample[name].nbytes for name in rows)
    sizes: dict[str, Any] = {"observation_bytes": 16, "num_actions": 3}
    assert stored == replay_bytes(6, **sizes, masked=masked, labels=labels)


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(("storage", "gib"), [("ram", 9), ("device", 9), ("disk", 90)])
def test_nine_tenths_of_the_free_memory_may_be_planned(storage: StorageKind, gib: int) -> None:
    check_memory(gib * GIB, storage)
    with pytest.raises(ValueError, match=rf"^`data\.replay_capacity` must fit into {storage}\."):
        check_memory(gib * GIB + 1, storage)


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(("storage", "gib"), [("ram", 3), ("device", 3), ("disk", 30)])
def test_ranks_of_one_machine_share_its_memory(storage: StorageKind, gib: int) -> None:
    check_memory(gib * GIB, storage, local_ranks=3)
    with pytest.raises(ValueError, match=rf"must fit into {storage}\. .+ of {3 * gib}\.0 GiB when"):
        check_memory(gib * GIB + 1, storage, local_ranks=3)


def test_each_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * GIB, 80 * GIB))
    check_memory(9 * GIB, "device", "cuda:1", local_ranks=3)
    with pytest.raises(ValueError, match=r"must fit into device\."):
        check_memory(9 * GIB + 1, "device", "cuda:1", local_ranks=3)


def test_the_disk_is_that_of_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = {str(tmp_path): 10 * GIB, tempfile.gettempdir(): 5 * GIB}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[str(folder)])
    )
    check_memory(9 * GIB, "disk", folder=tmp_path)
    with pytest.raises(ValueError, match=r"5\.0 GiB free\. .+ set `data\.replay_folder`\.$"):
        check_memory(9 * GIB, "disk")


@pytest.mark.usefixtures("free")
def test_the_complaint_says_what_is_needed_and_what_is_free() -> None:
    with pytest.raises(ValueError, match=r"Got replays of 12\.5 GiB when full, with 10\.0 GiB fr"):
        check_memory(25 * GIB // 2, "ram")


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    for _ in range(2):
        check_folder(tmp_path / "not" / "there")
        assert (tmp_path / "not" / "there").is_dir()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(ValueError, match=complaint("data.replay_folder")):
            check_folder(folder)


def test_a_folder_that_cannot_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match=complaint("data.replay_folder")):
        check_folder(tmp_path)
