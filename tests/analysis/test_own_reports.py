from __future__ import annotations

from pathlib import Path

from helpers.finished_runs import write_run

from lit_mtdqn.analysis.found_runs import FoundRun, read_run
from lit_mtdqn.analysis.own_reports import compression_tables, own_pictures


def _method(folder: Path) -> list[FoundRun]:
    return [read_run(write_run(folder, {"a": 1.0}), "RUN")]


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_pictures_of_a_runs_own_report_are_shown(tmp_path: Path) -> None:
    methods = {"dqn": _method(tmp_path / "dqn" / "seed_0")}
    assert own_pictures(methods) == []
    _write(tmp_path / "dqn" / "seed_0" / "report" / "task_affinity.png", "PNG")
    heading, picture = own_pictures(methods)
    assert heading == "<h2>Tasks and one another</h2>"
    assert "What a step for one task does to the others: dqn, seed_0." in picture


def test_transfer_in_a_sequence_is_shown_once_for_all_its_stages(tmp_path: Path) -> None:
    methods = {name: _method(tmp_path / "study" / "seed_0" / name) for name in ("first", "then")}
    _write(tmp_path / "study" / "report" / "transfer.png", "PNG")
    _, picture = own_pictures(methods)
    assert "What was gained by learning something else first: study." in picture
    _write(tmp_path / "study" / "seed_0" / "report" / "transfer.png", "PNG")
    assert len(own_pictures(methods)) == 3


def test_a_table_of_compression_is_shown_as_it_is(tmp_path: Path) -> None:
    methods = {"dqn": _method(tmp_path / "dqn")}
    _write(tmp_path / "dqn" / "report" / "compression.csv", "")
    assert compression_tables(methods) == []
    _write(tmp_path / "dqn" / "report" / "compression.csv", "parameters,score\n10,<0.5\n")
    heading, table = compression_tables(methods)
    assert heading == "<h2>Compression: dqn, dqn</h2>"
    assert "<th>parameters</th><th>score</th>" in table
    assert "<td>10</td><td>&lt;0.5</td>" in table
