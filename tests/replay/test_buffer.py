import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asserts import complaint
from helpers.gpu_generator import GpuGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tensordict import TensorDict
from torchrl.data.replay_buffers.storages import tensor

from lit_mtdqn.replay import Replay, StorageKind

Array = NDArray[Any]
STORAGES = pytest.mark.parametrize("storage", ["ram", "disk", "device"])


def _rows(first: int, behind_last: int) -> dict[str, Array]:
    """Return transitions whose every field says which one it is."""
    number = np.arange(first, behind_last)
    return {
        "observation": np.stack([number, -number], 1).astype(np.float32),
        "action": number,
        "reward": number.astype(np.float32),
        "next_action_mask": np.stack([number % 2 == 0, number % 2 == 1, number >= 0], 1),
    }


def _held(replay: Replay) -> list[int]:
    """Return which transitions a small replay holds."""
    return sorted(set(replay.sample(400)["action"].tolist()))


@STORAGES
def test_the_oldest_transitions_are_overwritten(storage: StorageKind) -> None:
    replay = Replay(5, seed=0, storage=storage)
    replay.extend(_rows(0, 3))
    assert (len(replay), _held(replay)) == (3, [0, 1, 2])
    replay.extend(_rows(3, 7))
    assert (len(replay), _held(replay)) == (5, [2, 3, 4, 5, 6])
    replay.extend(_rows(7, 8))
    assert (len(replay), _held(replay)) == (5, [3, 4, 5, 6, 7])


def test_of_more_transitions_than_fit_the_newest_are_kept() -> None:
    replay = Replay(5, seed=0)
    replay.extend(_rows(0, 2))
    replay.extend(_rows(2, 20))
    assert (len(replay), _held(replay)) == (5, [15, 16, 17, 18, 19])
    replay.extend(_rows(20, 22))
    assert _held(replay) == [17, 18, 19, 20, 21]


@pytest.mark.parametrize("nothing", [{}, _rows(4, 4)], ids=["no arrays", "empty arrays"])
def test_no_transitions_are_fine(nothing: dict[str, Array]) -> None:
    replay = Replay(5, seed=0)
    replay.extend(nothing)
    assert len(replay) == 0
    replay.extend(_rows(0, 2))
    replay.extend(nothing)
    assert (len(replay), _held(replay)) == (2, [0, 1])


@STORAGES
def test_a_sample_keeps_rows_whole_and_types_unchanged(storage: StorageKind) -> None:
    replay = Replay(8, seed=0, storage=storage)
    replay.extend(_rows(0, 8))
    sample = replay.sample(20)
    number = sample["action"]
    assert number.dtype == torch.int64
    assert number.shape == (20,)
    assert torch.equal(sample["reward"], number.float())
    assert torch.equal(sample["observation"], torch.stack([number, -number], 1).float())
    mask = torch.stack([number % 2 == 0, number % 2 == 1, number >= 0], 1)
    assert torch.equal(sample["next_action_mask"], mask)


def test_the_index_of_a_sampled_row_is_its_place_in_the_ring() -> None:
    replay = Replay(5, seed=0)
    replay.extend(_rows(0, 4))
    replay.extend(_rows(4, 7))
    sample = replay.sample(50)
    assert torch.equal(sample["replay_index"], sample["action"] % 5)


def test_rows_are_drawn_uniformly_and_with_replacement() -> None:
    replay = Replay(4, seed=0)
    replay.extend(_rows(0, 4))
    counts = torch.bincount(replay.sample(4_000)["action"], minlength=4)
    # Five standard deviations of a binomial count around its mean of 1000.
    assert bool(((counts - 1_000).abs() < 5 * 750**0.5).all())


def test_draws_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    draws = []
    for seed in (1, 1, 2):
        replay = Replay(100, seed=seed)
        replay.extend(_rows(0, 100))
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        draws.append(replay.sample(10)["action"].tolist())
        assert torch.equal(torch.get_rng_state(), before)
    assert draws[0] == draws[1] != draws[2]


@STORAGES
def test_a_loaded_replay_goes_on_as_the_dumped_one(storage: StorageKind, tmp_path: Path) -> None:
    replay, loaded = Replay(5, seed=1, storage=storage), Replay(5, seed=2, storage=storage)
    replay.extend(_rows(0, 7))
    replay.sample(3)
    replay.dump(tmp_path)
    loaded.load(tmp_path, draws_on=True)
    assert len(loaded) == 5
    for after in (7, 9):
        expected, actual = replay.sample(10), loaded.sample(10)
        assert expected.keys() == actual.keys()
        for name in expected:
            assert torch.equal(actual[name], expected[name]), name
        replay.extend(_rows(after, after + 2))
        loaded.extend(_rows(after, after + 2))


def _stored_on_a_gpu(folder: Path) -> None:
    """Write a replay whose rows were drawn on a GPU."""
    stored = Replay(5, seed=1)
    stored.extend(_rows(0, 7))
    stored._draw_by(GpuGenerator(3))
    stored.dump(folder)


def test_draws_of_a_replay_stored_on_a_gpu_go_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stored_on_a_gpu(tmp_path)
    monkeypatch.setattr(Replay, "_make_generator", lambda *_: GpuGenerator())
    loaded = Replay(5, seed=2)
    loaded.load(tmp_path, draws_on=True)
    assert not loaded.draws_anew
    assert loaded._generator.get_state().tolist() == [3] * 16
    assert loaded._storage._rng is loaded._generator


def test_a_replay_stored_on_a_gpu_is_drawn_anew_on_the_cpu(tmp_path: Path) -> None:
    _stored_on_a_gpu(tmp_path)
    loaded, fresh = Replay(5, seed=2), Replay(5, seed=2)
    fresh.extend(_rows(0, 7))
    loaded.load(tmp_path, draws_on=True)
    assert loaded.draws_anew
    assert torch.equal(loaded.sample(20)["action"], fresh.sample(20)["action"])
    loaded.load(tmp_path)
    assert not loaded.draws_anew


def test_a_replay_stored_on_the_cpu_is_drawn_by_a_generator_of_the_gpu_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Replay(5, seed=1)
    stored.extend(_rows(0, 7))
    stored.dump(tmp_path)
    monkeypatch.setattr(Replay, "_make_generator", lambda *_: GpuGenerator(4))
    loaded = Replay(5, seed=2)
    loaded.load(tmp_path, draws_on=True)
    assert len(loaded) == 5
    assert loaded.draws_anew
    assert loaded._storage._rng is loaded._generator
    assert loaded._generator.get_state().tolist() == [4] * 16


@pytest.mark.parametrize("on_gpu", [False, True])
def test_older_replays_whose_generator_torchrl_has_written_are_read(
    on_gpu: bool, tmp_path: Path
) -> None:
    stored, loaded = Replay(5, seed=1), Replay(5, seed=2)
    stored.extend(_rows(0, 7))
    stored.dump(tmp_path)
    manifest = json.loads((tmp_path / "replay.json").read_text())
    (tmp_path / "replay.json").write_text(json.dumps({**manifest, "checksums": {}}))
    (tmp_path / "generator.pt").unlink()
    stored._buffer.dumps(tmp_path)
    if on_gpu:
        TensorDict(rng_state=GpuGenerator().get_state()).memmap(tmp_path / "rng_state")
    loaded.load(tmp_path, draws_on=True)
    assert loaded.draws_anew == on_gpu
    is_same = torch.equal(loaded.sample(20)["action"], stored.sample(20)["action"])
    assert is_same != on_gpu
    assert _held(loaded) == [2, 3, 4, 5, 6]


@STORAGES
def test_a_loaded_replay_leaves_the_files_as_they_are(storage: StorageKind, tmp_path: Path) -> None:
    stored = Replay(5, seed=1, storage=storage)
    stored.extend(_rows(0, 7))
    stored.dump(tmp_path / "replay")
    for _ in range(2):
        loaded = Replay(5, seed=2, storage=storage)
        loaded.load(tmp_path / "replay")
        loaded.extend(_rows(7, 10))
        assert loaded.sample(20)["action"].max() == 9


def test_a_file_that_was_damaged_or_lost_is_found(tmp_path: Path) -> None:
    stored = Replay(5, seed=1)
    stored.extend(_rows(0, 7))
    for name in ("reward.memmap", "action.memmap"):
        stored.dump(tmp_path / "replay")
        (file,) = (tmp_path / "replay").rglob(name)
        content = file.read_bytes()
        for broken in (content[:-1] + bytes([content[-1] ^ 1]), content[:-1], None):
            if broken is None:
                file.unlink()
            else:
                file.write_bytes(broken)
            with pytest.raises(ValueError, match=f"`replay` must be undamaged files in .*{name}"):
                Replay(5, seed=1).load(tmp_path / "replay")


def test_a_replay_is_found_whenever_another_was_taking_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "replay"
    first, second = Replay(5, seed=1), Replay(5, seed=1)
    first.extend(_rows(0, 5))
    second.extend(_rows(5, 10))
    first.dump(folder)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if target == folder:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        second.dump(folder)
    assert not folder.exists()
    monkeypatch.undo()
    found = Replay(5, seed=1)
    found.load(folder)
    assert found.sample(20)["action"].max() == 4
    second.dump(folder)
    found.load(folder)
    assert found.sample(20)["action"].min() == 5
    assert [path.name for path in tmp_path.iterdir()] == ["replay"]


def test_a_replay_loaded_to_learn_from_draws_by_its_own_seed(tmp_path: Path) -> None:
    stored = Replay(100, seed=1)
    stored.extend(_rows(0, 100))
    stored.dump(tmp_path)

    def draws(seed: int) -> list[int]:
        replay = Replay(100, seed=seed)
        replay.load(tmp_path)
        actions: list[int] = replay.sample(10)["action"].tolist()
        return actions

    assert draws(2) == draws(2) != draws(3)


def test_a_replay_of_another_meaning_is_refused(tmp_path: Path) -> None:
    stored = Replay(5, seed=1, meaning={"gamma": 0.9, "reward_clip": (-1.0, 1.0)})
    stored.extend(_rows(0, 3))
    stored.dump(tmp_path)
    Replay(5, seed=1, meaning={"gamma": 0.9, "reward_clip": [-1.0, 1.0]}).load(tmp_path)
    with pytest.raises(ValueError, match=complaint("gamma")):
        Replay(5, seed=1, meaning={"gamma": 0.5}).load(tmp_path)


def _sizes(observation: int, actions: int) -> dict[str, object]:
    return {"observation_shape": [observation], "num_actions": actions}


@STORAGES
@pytest.mark.parametrize("actions", [2, 4])
def test_a_stored_replay_takes_the_sizes_of_the_run_it_is_learned_in(
    storage: StorageKind, actions: int, tmp_path: Path
) -> None:
    stored = Replay(5, seed=1, meaning=_sizes(2, 3))
    stored.extend(_rows(0, 4))
    stored.dump(tmp_path)
    for draws_on, size in ((True, 5), (False, 1)):
        with pytest.raises(ValueError, match=complaint("observation_shape")):
            Replay(5, seed=1, meaning=_sizes(size, 3)).load(tmp_path, draws_on=draws_on)
    loaded = Replay(5, seed=1, storage=storage, meaning=_sizes(5, actions))
    loaded.load(tmp_path)
    expected, found = (one.sample_evenly(9, _generator()) for one in (stored, loaded))
    assert torch.equal(found["observation"][:, :2], expected["observation"])
    assert found["observation"].shape == (9, 5)
    assert (found["observation"][:, 2:] == 0).all()
    mask = torch.nn.functional.pad(expected["next_action_mask"], (0, 1))
    assert torch.equal(found["next_action_mask"], mask[:, :actions])
    for name in ("action", "reward", "replay_index"):
        assert torch.equal(found[name], expected[name])
    assert _held(loaded) == [0, 1, 2, 3]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_even_draws_follow_a_generator_of_their_own_and_change_no_later_draw() -> None:
    draws = []
    for looks in (False, True):
        replay = Replay(100, seed=1)
        replay.extend(_rows(0, 50))
        if looks:
            looked = [replay.sample_evenly(400, _generator()) for _ in range(2)]
            assert torch.equal(looked[0]["action"], looked[1]["action"])
            assert set(looked[0]["replay_index"].tolist()) == set(range(50))
        draws.append(replay.sample(10)["replay_index"].tolist())
    assert draws[0] == draws[1]


@STORAGES
def test_a_dump_is_a_copy_that_later_transitions_do_not_reach(
    storage: StorageKind, tmp_path: Path
) -> None:
    replay, again = Replay(5, seed=1, storage=storage), Replay(5, seed=2, storage=storage)
    replay.extend(_rows(0, 5))
    replay.dump(tmp_path)
    replay.extend(_rows(5, 8))
    again.load(tmp_path)
    again.extend(_rows(20, 25))
    third = Replay(5, seed=3, storage=storage)
    third.load(tmp_path)
    assert _held(third) == [0, 1, 2, 3, 4]


def _no_folder(folder: Path) -> None:
    folder.rmdir()


def _nothing(folder: Path) -> None:
    assert not any(folder.iterdir())


def _other_capacity(folder: Path) -> None:
    replay = Replay(7, seed=0)
    replay.extend(_rows(0, 7))
    replay.dump(folder)


@pytest.mark.parametrize("prepare", [_no_folder, _nothing, _other_capacity])
def test_a_folder_that_holds_no_fitting_replay_is_refused(
    prepare: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "replay"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(ValueError, match=complaint("replay")):
        Replay(5, seed=0).load(folder)


def test_uniform_replays_are_not_prioritised() -> None:
    assert not Replay(5, seed=0).is_prioritised


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_replay_without_room_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=complaint("replay_capacity")):
        Replay(capacity, seed=0)


def test_an_unknown_storage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`replay_storage` must be one of ram, disk, device\."):
        Replay(5, seed=0, storage="tape")  # type: ignore[arg-type]


def test_files_take_no_signal_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # torchrl does so once in a process.
    monkeypatch.setattr(tensor, "_CLEANUP_HANDLERS_REGISTERED", False)
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]
    replay = Replay(5, seed=0, storage="disk")
    replay.extend(_rows(0, 3))
    assert [signal.getsignal(number) for number in signals] == before


@given(
    capacity=st.integers(1, 6),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    storage=st.sampled_from(["ram", "disk"]),
)
@settings(max_examples=40, deadline=None)
def test_a_ring_holds_the_newest_each_behind_the_one_before_also_when_read_back(
    capacity: int, counts: list[int], storage: StorageKind
) -> None:
    """Against a list of places; a batch larger than the ring counts as its newest rows alone."""
    replay, loaded = (Replay(capacity, seed, storage) for seed in (1, 2))
    places: dict[int, int] = {}
    first, cursor = 0, 0
    for count in counts:
        replay.extend(_rows(first, first + count))
        first += count
        for number in range(first - min(count, capacity), first):
            places[cursor] = number
            cursor = (cursor + 1) % capacity
    assert len(replay) == len(places) == min(first, capacity)
    if not places:
        return
    with tempfile.TemporaryDirectory() as folder:
        replay.dump(f"{folder}/replay")
        loaded.load(f"{folder}/replay", draws_on=True)
        for one in (replay, loaded):
            sample = one.sample(50)
            drawn = zip(sample["replay_index"].tolist(), sample["action"].tolist(), strict=True)
            assert all(places[place] == number for place, number in drawn)
            actions = sample["action"]
            assert torch.equal(sample["observation"], torch.stack([actions, -actions], 1).float())
        expected, found = (one.sample_evenly(20, _generator()) for one in (replay, loaded))
        assert all(torch.equal(found[name], column) for name, column in expected.items())
