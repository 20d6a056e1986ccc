from pathlib import Path

import pytest
from helpers.finished_runs import write_run

from lit_mtdqn.cli import main


def test_the_command_says_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {"a": 0.4})
    main(["report", f"mine={run}", f"--folder={tmp_path / 'page'}", "--title=Mine"])
    assert capsys.readouterr().out == f"Report: {tmp_path}/page/report.html\n"
    assert "<h1>Mine</h1>" in (tmp_path / "page" / "report.html").read_text()


def test_a_folder_without_runs_ends_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: `RUN` must be folders of runs, each with"):
        main(["report", str(tmp_path)])
