import errno
import os
import re
import resource
import shutil
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import ReplayCheckpoint
from lit_mtdqn.replay import Replay


def _fit(
    folder: Path, total_env_steps: int, ckpt_path: str | None = None, *others: Callback
) -> RolloutDataModule:
    data = RolloutDataModule(
        {"cartpole": TaskSpec(env="CartPole-v1")},
        total_env_steps=total_env_steps,
        warmup_env_steps=200,
        eval_episodes=1,
        eval_max_steps=10,
        batch_size=8,
        seed=3,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        max_epochs=-1,
        callbacks=[*others, ReplayCheckpoint()],
    )
    trainer.fit(DQN(data.task_infos), data, ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / "last.ckpt")
    return data


def _rows(data: RolloutDataModule) -> dict[str, Any]:
    replay = data.slots[0].replay
    return {"length": len(replay), "sample": replay.sample(5)["observation"]}


def test_a_resumed_run_starts_with_the_replay_of_the_first(tmp_path: Path) -> None:
    first = _fit(tmp_path, total_env_steps=600)
    resumed = _fit(tmp_path, total_env_steps=600, ckpt_path=str(tmp_path / "last.ckpt"))
    assert resumed.clock.total_env_steps == first.clock.total_env_steps
    before, after = _rows(first), _rows(resumed)
    assert before["length"] == after["length"] > 0
    assert torch.equal(before["sample"], after["sample"])


def test_a_replay_survives_being_read_and_written_again(tmp_path: Path) -> None:
    _fit(tmp_path, total_env_steps=600)
    for total_env_steps in (1200, 1800):
        data = _fit(tmp_path, total_env_steps, ckpt_path=str(tmp_path / "last.ckpt"))
        rows = data.slots[0].replay.sample(2000)["observation"]
        assert rows.isfinite().all()
        assert len(data.slots[0].replay) > total_env_steps - 100
        assert rows.abs().sum(-1).min() > 0.0


def test_without_a_checkpoint_nothing_is_read(tmp_path: Path) -> None:
    first = _fit(tmp_path, total_env_steps=600)
    fresh = _fit(tmp_path, total_env_steps=400)
    assert len(fresh.slots[0].replay) < len(first.slots[0].replay)


class Failing(Callback):
    """Ends a run in the n-th call of a hook, and from then on has no folder to tell."""

    def __init__(self, hook: str, monkeypatch: pytest.MonkeyPatch, calls: int = 1) -> None:
        self.monkeypatch, self.calls = monkeypatch, calls
        setattr(self, hook, self.fail)

    def fail(self, *_: Any) -> None:
        self.calls -= 1
        if self.calls > 0:
            return

        def gone(_: Any) -> None:
            raise AssertionError("the other ranks are gone")

        self.monkeypatch.setattr(lightning.Trainer, "log_dir", property(gone))
        raise RuntimeError("no more")


def test_an_interrupted_run_writes_its_replay_without_asking_other_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="no more"):
        _fit(tmp_path, 600, None, Failing("on_validation_end", monkeypatch))
    assert (tmp_path / "replay" / "rank_0" / "cartpole").is_dir()


def test_in_the_middle_of_a_phase_an_interruption_writes_no_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="no more"):
        _fit(tmp_path, 600, None, Failing("on_train_batch_end", monkeypatch, calls=3))
    assert not (tmp_path / "replay").exists()


@pytest.mark.parametrize("hook", ["on_train_start", "on_train_batch_start"])
def test_an_interruption_before_the_first_update_leaves_the_replay_on_disk(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run's; the second is interrupted with the little that its warm-up has played."""
    before = _rows(_fit(tmp_path, total_env_steps=600))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no more"):
        _fit(tmp_path, 600, None, Failing(hook, patch))
    resumed = _fit(tmp_path, total_env_steps=600, ckpt_path=str(tmp_path / "last.ckpt"))
    assert _rows(resumed)["length"] == before["length"]


def test_a_disk_without_room_costs_the_replays_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    # Of rows of 48 bytes: two observations of 4 float32, action, reward and discount.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(48 * 100_000))
    with pytest.warns(UserWarning, match=r"Replays are not written to .*: they take 0\.0 GiB"):
        _fit(tmp_path, 600)
    assert not (tmp_path / "replay" / "rank_0").exists()
    assert (tmp_path / "last.ckpt").is_file()


def _replace_dump(monkeypatch: pytest.MonkeyPatch, dump: Callable[..., None]) -> None:
    whole = RolloutDataModule.dump_replay
    monkeypatch.setattr(RolloutDataModule, "dump_replay", partialmethod(dump, whole))


# Before anything is written, and in the middle: columns take 0.4 to 1.6 MB.
@pytest.mark.parametrize("room", [0, 2**20])
def test_a_limit_that_is_met_while_replays_are_written_costs_them_and_not_the_run(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limited(data: RolloutDataModule, whole: Callable[..., None], folder: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            whole(data, folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    _replace_dump(monkeypatch, limited)
    with pytest.warns(UserWarning, match="Replays are not written to .*File too large") as told:
        _fit(tmp_path, 600)
    assert sum("Replays are not written" in str(one.message) for one in told) == 1
    assert list((tmp_path / "replay").iterdir()) == []
    assert (tmp_path / "last.ckpt").is_file()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
    ],
    ids=["full", "quota", "cut off"],
)
def test_replays_that_found_no_room_are_written_when_there_is_some(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [error]

    def failing_once(data: RolloutDataModule, whole: Callable[..., None], folder: Path) -> None:
        with monkeypatch.context() as patch:
            if errors:
                patch.setattr("lit_mtdqn.replay.buffer.checksums", _raising(errors.pop()))
            whole(data, folder)

    _replace_dump(monkeypatch, failing_once)
    with pytest.warns(UserWarning, match="Replays are not written to"):
        first = _fit(tmp_path, total_env_steps=600)
    assert [path.name for path in (tmp_path / "replay").iterdir()] == ["rank_0"]
    resumed = _fit(tmp_path, total_env_steps=600, ckpt_path=str(tmp_path / "last.ckpt"))
    assert torch.equal(_rows(first)["sample"], _rows(resumed)["sample"])


def _raising(error: Exception) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def test_replays_without_room_leave_those_of_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fit(tmp_path, total_env_steps=600)
    before = Replay.stored_moment(tmp_path / "replay" / "rank_0" / "cartpole")
    full = _raising(OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("lit_mtdqn.replay.buffer.checksums", full)
    with pytest.warns(UserWarning, match="Replays are not written to"):
        _fit(tmp_path, 1200, ckpt_path=str(tmp_path / "last.ckpt"))
    assert [path.name for path in (tmp_path / "replay").iterdir()] == ["rank_0"]
    assert Replay.stored_moment(tmp_path / "replay" / "rank_0" / "cartpole") == before


def test_another_error_while_replays_are_written_ends_the_run_and_leaves_nothing_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_mtdqn.replay.buffer.checksums", _raising(RuntimeError("no sums")))
    with pytest.raises(RuntimeError, match="no sums"):
        _fit(tmp_path, 600)
    assert list((tmp_path / "replay").iterdir()) == []


def test_replays_of_another_moment_are_not_read(tmp_path: Path) -> None:
    _fit(tmp_path, 600)
    shutil.copytree(tmp_path / "replay", tmp_path / "earlier")
    _fit(tmp_path, 1200, ckpt_path=str(tmp_path / "last.ckpt"))
    shutil.rmtree(tmp_path / "replay")
    (tmp_path / "earlier").rename(tmp_path / "replay")
    with pytest.warns(UserWarning, match="No replay of cartpole goes on: that in"):
        data = _fit(tmp_path, 1800, ckpt_path=str(tmp_path / "last.ckpt"))
    assert len(data.slots[0].replay) < 1000


def test_replays_are_on_the_disk_before_those_of_the_checkpoint_before_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file of new replays is synced before they are renamed, and the new name after."""
    _fit(tmp_path, 600)
    synced: list[int] = []
    seen: list[str] = []
    sync, rename, remove = os.fsync, Path.rename, shutil.rmtree

    def told_sync(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        sync(file)

    def told_rename(path: Path, target: Path) -> Path:
        if path.name == "rank_0.new":
            files = [path, *path.rglob("*")]
            assert {file.stat().st_ino for file in files} <= set(synced)
            synced.clear()
            seen.append("renamed")
        return rename(path, target)

    def told_remove(path: Path, **options: Any) -> None:
        if path.name == "rank_0.old" and path.exists():
            assert path.parent.stat().st_ino in synced
            seen.append("removed")
        remove(path, **options)

    monkeypatch.setattr(os, "fsync", told_sync)
    monkeypatch.setattr(Path, "rename", told_rename)
    monkeypatch.setattr(shutil, "rmtree", told_remove)
    _fit(tmp_path, 1200, ckpt_path=str(tmp_path / "last.ckpt"))
    assert seen == ["renamed", "removed"]


def test_replays_that_cannot_be_written_take_the_place_of_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = _raising(OSError(errno.EROFS, "Read-only file system"))
    monkeypatch.setattr(ReplayCheckpoint, "_dump", read_only)
    checkpoint = ReplayCheckpoint()
    checkpoint._rank_folder = tmp_path
    said = f"Replays are not written to {tmp_path} (Read-only file system)."
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$"):
        checkpoint.on_exception(Mock(), Mock(), KeyboardInterrupt())
