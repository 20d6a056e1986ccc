from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lit_mtdqn.analysis.saved_tensors import file_of_rank, save_tensors


@pytest.mark.parametrize(("ranks", "name"), [(1, "batch.pt"), (2, "batch_1.pt")])
def test_a_rank_beside_others_has_a_file_of_its_own(ranks: int, name: str, tmp_path: Path) -> None:
    trainer = SimpleNamespace(global_rank=1, world_size=ranks, default_root_dir=str(tmp_path))
    assert file_of_rank(trainer, "batch") == tmp_path / name


def test_a_view_is_saved_without_what_it_is_a_view_of(tmp_path: Path) -> None:
    file = tmp_path / "run" / "batch.pt"
    whole = torch.arange(1000.0)
    assert save_tensors({"view": whole[3:5], "step": 7}, file, "the batch") == (
        f"the batch is in {file}"
    )
    saved = torch.load(file, weights_only=True)
    assert saved["view"].tolist() == [3.0, 4.0]
    assert saved["view"].untyped_storage().nbytes() == 8
    assert saved["step"] == 7


def test_what_cannot_be_written_is_told_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    said = save_tensors({}, tmp_path / "run" / "batch.pt", "the batch")
    assert said.startswith(f"the batch cannot be written to {tmp_path / 'run' / 'batch.pt'} (")
