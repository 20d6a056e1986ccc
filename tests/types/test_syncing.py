import os
from pathlib import Path

import pytest

from lit_mtdqn.types.syncing import sync_tree


def test_a_folder_is_synced_with_all_that_lies_in_it_and_none_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "tree" / "inner"
    inner.mkdir(parents=True)
    wanted = {tmp_path / "tree", inner, inner / "a", tmp_path / "tree" / "b"}
    for path in (inner / "a", tmp_path / "tree" / "b", tmp_path / "beside"):
        path.write_text("text")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    sync_tree(tmp_path / "tree")
    assert sorted(synced) == sorted(path.stat().st_ino for path in wanted)
