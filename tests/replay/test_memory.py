import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from lit_mtdqn.replay import Replay, StorageKind, check_memory, replay_bytes

Array = NDArray[Any]
GIB = 2**30


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend to have 10 GiB of memory and 100 GiB of disk left."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10 * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * GIB))


@pytest.mark.parametrize("masked", [False, True])
def test_the_size_is_that_of_the_stored_arrays(masked: bool) -> None:
    rows: dict[str, Array] = {
        "observation": np.zeros((6, 4), np.float32),
        "action": np.zeros(6, np.int64),
        "reward": np.zeros(6, np.float32),
        "discount": np.zeros(6, np.float32),
        "next_observation": np.zeros((6, 4), np.float32),
    }
    if masked:
        rows |= {name: np.ones((6, 3), bool) for name in ("action_mask", "next_action_mask")}
    replay = Replay(6, seed=0)
    replay.extend(rows)
    sample = replay.sample(6)
    stored = sum(sample[name].nbytes for name in rows)
    assert stored == replay_bytes(6, observation_bytes=16, num_actions=3, masked=masked)


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(("storage", "gib"), [("ram", 9), ("device", 9), ("disk", 90)])
def test_nine_tenths_of_the_free_memory_may_be_planned(storage: StorageKind, gib: int) -> None:
    check_memory(gib * GIB, storage)
    with pytest.raises(ValueError, match=rf"^`data\.replay_capacity` must fit into {storage}\."):
        check_memory(gib * GIB + 1, storage)


@pytest.mark.usefixtures("free")
def test_the_complaint_says_what_is_needed_and_what_is_free() -> None:
    with pytest.raises(ValueError, match=r"Got replays of 12\.5 GiB when full, with 10\.0 GiB fr"):
        check_memory(25 * GIB // 2, "ram")
