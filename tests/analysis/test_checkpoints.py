from pathlib import Path

import pytest
import torch

from lit_mtdqn.analysis.checkpoints import find_checkpoint, previous_checkpoint, whole_checkpoint


def _saved(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": torch.full((1000,), float(number))}, path)
    return path


def _damage(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x10
    path.write_bytes(content)


def test_a_whole_checkpoint_is_taken_as_it_is(tmp_path: Path) -> None:
    path = _saved(tmp_path / "last.ckpt", 1)
    assert whole_checkpoint(path, "source") == path


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_file_that_was_cut_off_is_replaced_by_the_one_before(kept: float, tmp_path: Path) -> None:
    path = _saved(tmp_path / "last.ckpt", 1)
    previous = _saved(previous_checkpoint(path), 0)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.warns(UserWarning, match="taking .*previous/last.ckpt, the checkpoint before it"):
        assert whole_checkpoint(path, "source") == previous


def test_a_single_flipped_bit_of_a_weight_is_found(tmp_path: Path) -> None:
    path = _saved(tmp_path / "last.ckpt", 1)
    _damage(path, 0.5)
    # PyTorch itself loads it without a word.
    weights = torch.load(path, weights_only=True)["weights"]
    assert not torch.equal(weights, torch.ones(1000))
    with pytest.raises(
        ValueError,
        match=r"`source` must be a checkpoint of this package, and whole\. Got .*checksum",
    ):
        whole_checkpoint(path, "source")


def test_where_both_are_damaged_none_is_taken(tmp_path: Path) -> None:
    path = _saved(tmp_path / "last.ckpt", 1)
    _saved(previous_checkpoint(path), 0).write_bytes(b"")
    _damage(path, 0.5)
    with pytest.raises(ValueError, match="and whole"):
        whole_checkpoint(path, "source")


def test_a_run_whose_last_checkpoint_is_missing_has_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    previous = _saved(previous_checkpoint(path), 0)
    with pytest.warns(UserWarning, match="No such file"):
        assert find_checkpoint([str(tmp_path)], "last", "source") == previous


def test_a_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`source` must be a checkpoint, or the folder of a run"):
        find_checkpoint([str(tmp_path)], "last", "source")
