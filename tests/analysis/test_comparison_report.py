import base64
import csv
import html
import re
from pathlib import Path

from helpers.finished_runs import write_run

from lit_mtdqn.analysis.comparison_report import report_runs

LOW, HIGH = {"a": 0.2, "b": 0.1}, {"a": 0.9, "b": 0.7}


def _write(folder: Path, *, tested: bool = True) -> Path:
    for seed in range(3):
        write_run(folder / "better" / f"seed_{seed}", HIGH)
        write_run(folder / "worse" / f"seed_{seed}", LOW, tested=tested)
    return folder


def _words(page: Path) -> str:
    """Return what one reads on a page."""
    body = page.read_text().partition("<body>")[2]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_the_page_answers_what_is_best_and_worst_and_at_what_cost(tmp_path: Path) -> None:
    page = report_runs([str(_write(tmp_path))], None, "Two methods", "RUN")
    assert page == tmp_path / "report" / "report.html"
    words = _words(page)
    best = "Best: better , interquartile mean 0.80 (95 % interval 0.80 to 0.80) over 3 runs and 2"
    assert f"{best} tasks." in words
    assert "Spread of runs of better: from 0.80 to 0.80." in words
    assert "worse follows with 0.15; the intervals do not overlap." in words
    assert "Worst task of better: b , 0.70." in words
    assert "Budget: 2k env steps a run, of all tasks together." in words
    assert f"lit-mtdqn fit --config {tmp_path}/worse/seed_2/config.yaml" in words
    assert "Scores of a, b: 0 is a random policy, 1 the reference of score_range ." in words
    assert "share of successes" not in words
    assert "not finished" not in words


def test_a_method_of_one_run_has_no_interval_and_no_verdict(tmp_path: Path) -> None:
    write_run(tmp_path / "better", HIGH)
    for seed in range(2):
        write_run(tmp_path / "worse" / f"seed_{seed}", LOW)
    page = report_runs([str(tmp_path)], None, "Runs", "RUN")
    words = _words(page)
    assert "interquartile mean 0.80 (one run, no interval) over 1 run" in words
    assert "worse follows with 0.15; a single run does not say whether" in words
    assert "Intervals of worse are too narrow" in words
    assert page.read_text().count("<td>one run</td>") == 2


def test_runs_that_go_on_are_said_to_be_judged_by_evaluations(tmp_path: Path) -> None:
    words = _words(report_runs([str(_write(tmp_path, tested=False))], None, "Runs", "RUN"))
    assert "3 runs of 6 not finished: judged by the last evaluation." in words


def test_runs_that_have_not_been_evaluated_are_named_and_count_for_the_folder(
    tmp_path: Path,
) -> None:
    write_run(tmp_path / "seed_0", HIGH)
    waiting = tmp_path / "seed_1"
    waiting.mkdir()
    (waiting / "metrics.csv").write_text("step,env_steps\n100,100\n")
    page = report_runs([str(tmp_path)], None, "Runs", "RUN")
    assert page == tmp_path / "report" / "report.html"
    assert f"Left out, not evaluated yet: {waiting}." in _words(page)


def test_a_single_run_has_a_page_without_comparisons(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": 0.4})
    page = report_runs([str(run)], None, "One run", "RUN")
    assert page == run / "report" / "report.html"
    words = _words(page)
    assert words.startswith("One run Score, interquartile mean 0.40 (one run, no interval)")
    assert "Spread of runs: unknown, of one." in words
    assert "How sure is that?" not in words


def test_scores_without_a_range_are_told_from_those_with_one(tmp_path: Path) -> None:
    tasks = {"a": {"score_range": [0, 10]}, "b": {}}
    run = write_run(tmp_path / "run", {"a": 0.4, "b": 7.0}, tasks=tasks)
    words = _words(report_runs([str(run)], None, None, "RUN"))
    assert words.startswith("run on a and b Score, ")
    assert "Scores of a: 0 is a random policy, 1 the reference" in words
    assert "Scores of b: the return." in words


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    _write(tmp_path)
    page = report_runs([str(tmp_path)], tmp_path / "page", "<Runs>", "RUN")
    text = page.read_text()
    beside = [(page.parent / name).read_bytes() for name in ("learning.png", "comparison.png")]
    pictures = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    assert [base64.b64decode(picture) for picture in pictures] == beside
    assert text.count("src=") == len(pictures)
    assert "http" not in text.partition("<body>")[2]
    assert "<title>&lt;Runs&gt;</title>" in text
    (config, _) = re.findall(r"<details><summary>[^<]*</summary><pre>([^<]*)</pre>", text)
    assert html.unescape(config) == (tmp_path / "better" / "seed_0" / "config.yaml").read_text()
    assert "better: config.yaml of seed_0" in text


def test_methods_that_figures_leave_out_are_counted(tmp_path: Path) -> None:
    for number in range(10):
        write_run(tmp_path / f"method_{number}", {"a": 0.1 * number})
    words = _words(report_runs([str(tmp_path)], None, "Many", "RUN"))
    assert words.count("Without the last 2 methods of the tables.") == 2


def test_the_table_holds_every_score(tmp_path: Path) -> None:
    report_runs([str(_write(tmp_path))], tmp_path / "page", "Runs", "RUN")
    with (tmp_path / "page" / "run_scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    found = {(row["method"], row["task"]): float(row["score"]) for row in rows}
    expected = {"better": HIGH, "worse": LOW}
    assert found == {(m, t): s for m, scores in expected.items() for t, s in scores.items()}
