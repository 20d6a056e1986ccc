import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lit_mtdqn.replay import Prioritisation, PrioritisedSampler, Replay, is_out_of_room
from lit_mtdqn.replay.room import reserve
from lit_mtdqn.types import Clock

CAPACITY = 30_000


def _replay() -> Replay:
    sampler = PrioritisedSampler(CAPACITY, Prioritisation(), Clock())
    replay = Replay(CAPACITY, seed=0, sampler=sampler)
    rows = {"observation": np.ones((7, 4), np.float32), "action": np.arange(7)}
    replay.extend(rows)
    return replay


def test_a_reserved_file_has_its_size_and_its_place(tmp_path: Path) -> None:
    reserve({tmp_path / "inner" / "a": 100_000, tmp_path / "empty": 0})
    found = (tmp_path / "inner" / "a").stat()
    assert (found.st_size, found.st_blocks * 512 >= 100_000) == (100_000, True)
    assert (tmp_path / "empty").stat().st_size == 0


def test_a_replay_takes_the_bytes_that_it_says_priorities_included(tmp_path: Path) -> None:
    replay = _replay()
    replay.dump(tmp_path / "replay")
    size = sum(path.stat().st_size for path in (tmp_path / "replay").rglob("*") if path.is_file())
    assert replay.stored_bytes == CAPACITY * (16 + 8 + 8)
    assert 0 <= size - replay.stored_bytes < 2**16


def test_every_column_has_its_place_before_the_first_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = _replay()
    replay.dump(tmp_path / "replay")
    written = {path.name: path.stat().st_size for path in tmp_path.rglob("*.memmap")}
    reserved: dict[str, int] = {}

    def told(sizes: dict[Path, int]) -> None:
        assert not any(tmp_path.rglob("anew.new/*"))
        reserved.update({path.name: size for path, size in sizes.items()})
        reserve(sizes)

    monkeypatch.setattr("lit_mtdqn.replay.buffer.reserve", told)
    replay.dump(tmp_path / "anew")
    assert reserved.pop("rest") > CAPACITY * 8
    assert reserved == written


def _refuse(number: int) -> Callable[..., None]:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_file_system_that_cannot_reserve_is_no_obstacle_and_one_without_room_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", _refuse(errno.EOPNOTSUPP))
    reserve({tmp_path / "a": 10})
    assert (tmp_path / "a").is_file()
    monkeypatch.setattr(os, "posix_fallocate", _refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space") as raised:
        reserve({tmp_path / "a": 10})
    assert is_out_of_room(raised.value)


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (OSError(errno.EFBIG, "File too large"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("unable to resize file <a>: No space left on device (28)"), True),
        (RuntimeError("CUDA error"), False),
        (ValueError("No space left on device"), False),
    ],
)
def test_no_room_is_told_from_other_errors(error: Exception, is_so: bool) -> None:
    assert is_out_of_room(error) is is_so
