from pathlib import Path

import pytest

from lit_mtdqn.analysis.whole_files import cut_unfinished_line, whole_file


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with whole_file(path) as fresh:
        fresh.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as fresh:
            fresh.write_text("ne")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "kept"), [(b"a\nb\nc", b"a\nb\n"), (b"a\n", b"a\n"), (b"a", b""), (b"", b"")]
)
def test_only_a_line_without_an_end_is_cut(text: bytes, kept: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text)
    with path.open("rb+") as file:
        cut_unfinished_line(file)
    assert path.read_bytes() == kept
