import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import ReplayCheckpoint


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
    """Ends a run in a hook, and from then on has no folder to tell."""

    def __init__(self, hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        setattr(self, hook, self.fail)

    def fail(self, *_: Any) -> None:
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
