"""The report of a sequence, from what its stages have left, against numbers worked out by hand."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lit_mtdqn.analysis.heat_maps import transfer_gains
from lit_mtdqn.analysis.sequence_report import ReportedStage, chains, report_sequence

TASKS = ("a", "b")
CURVE = tuple[float, ...]
# Test scores, and scores at env steps 0, 100 and 200, of each task by stage.
FIRST: dict[str, tuple[float, CURVE]] = {"a": (0.9, (0.0, 0.5, 0.9)), "b": (0.2, (0.0, 0.1, 0.2))}
SECOND: dict[str, tuple[float, CURVE]] = {"a": (0.3, (0.9, 0.4, 0.3)), "b": (1.0, (0.2, 0.8, 1.0))}
SCRATCH: dict[str, tuple[float, CURVE]] = {"a": (0.0, (0.0, 0.0, 0.0)), "b": (0.8, (0.0, 0.4, 0.8))}
STAGES = [
    ReportedStage(name="first", learned=("a",), scored=TASKS),
    ReportedStage(name="scratch", learned=("b",), scored=TASKS),
    ReportedStage(
        name="second", learned=("b",), scored=TASKS, parents=("first",), against="scratch"
    ),
]
COLUMNS = ("task", "episodes", "mean", "std", "min", "max", "length", "success", "score")


def write_stage(
    folder: Path, scores: dict[str, tuple[float, CURVE]], acting: str, beside: int = 0
) -> None:
    """Write what a run leaves: its test and its metrics; training episodes have 20 env steps.

    Args:
        folder: Of the run.
        scores: Test score and curve of each task.
        acting: The task that is played and reported on.
        beside: Number of further tasks that are played beside it.
    """
    (folder / "report").mkdir(parents=True)
    with (folder / "report" / "test_scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for task, (score, _) in scores.items():
            writer.writerow([task, 5, 10 * score, 0, 0, 0, 20, "", score])
    names = [f"val/score/{task}" for task in scores]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["step", *names, f"rollout/env_steps/{acting}", f"rollout/episodes/{acting}"]
        )
        for place, step in enumerate((0, 100, 200)):
            values = [curve[place] for _, curve in scores.values()]
            counts = [step, step / 20] if step else ["", ""]
            writer.writerow([(1 + beside) * step, *values, *counts])


def write_root(root: Path) -> Path:
    for name, scores, acting in (
        ("first", FIRST, "a"),
        ("scratch", SCRATCH, "b"),
        ("second", SECOND, "b"),
    ):
        write_stage(root / name, scores, acting)
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_tells_what_was_gained_and_what_was_forgotten(tmp_path: Path) -> None:
    text = report_sequence([write_root(tmp_path / "out")], STAGES, tmp_path / "out")
    report = tmp_path / "out" / "report"
    (gained,) = rows_of(report / "transfer.csv")
    assert (gained["stage"], gained["against"], gained["task"]) == ("second", "scratch", "b")
    expected = {
        "jumpstart": 0.2,
        "threshold": 0.95 * 0.8,
        "steps": 100,
        "scratch_steps": 200,
        # 50 + 90 over 20 + 60
        "area_ratio": 1.75,
        "transfer_ratio": 0.75,
        "asymptote": 1.0,
        # An episode has ended in each 20 env steps.
        "after_5_episodes": 0.8,
    }
    assert {name: float(gained[name]) for name in expected} == pytest.approx(expected)
    assert (gained["after_1_episodes"], gained["after_20_episodes"]) == ("", "")
    (kept,) = rows_of(report / "retention.csv")
    assert (kept["chain"], kept["tasks"]) == ("first > second", "a b")
    numbers = {name: float(kept[name]) for name in list(kept)[3:]}
    expected = {"forward_transfer": 0.2, "backward_transfer": -0.6, "forgetting": 0.6}
    assert numbers == pytest.approx(expected)
    lines = [line.split() for line in text.splitlines()]
    assert ["second", "0.300", "1.000*"] in lines
    assert ["second", "b", "0.200", "1.750", "100", "200", "1.000", "0.800"] in lines
    assert ["first", ">", "second", "0.200", "-0.600", "0.600"] in lines
    assert ["score", "after", "episodes", "task", "1", "5", "20"] in lines
    assert ["second", "b", "-", "0.800", "-"] in lines
    assert "agreement" not in text


def test_of_students_it_tells_how_often_they_do_as_their_teacher_would(tmp_path: Path) -> None:
    root = write_root(tmp_path / "out")
    metrics = root / "second" / "metrics.csv"
    header, *rows = metrics.read_text().splitlines()
    agreed = ["train/agreement/b", "0.2", "0.6", "0.75"]
    lines = [f"{row},{own}" for row, own in zip([header, *rows], agreed, strict=True)]
    metrics.write_text("\n".join(lines) + "\n")
    text = report_sequence([root], STAGES, root)
    found = {(row["stage"], row["task"]): row for row in rows_of(root / "report" / "scores.csv")}
    # The last of three rows is the last tenth.
    assert float(found["second", "b"]["agreement"]) == pytest.approx(0.75)
    assert found["second", "a"]["agreement"] == found["first", "a"]["agreement"] == ""
    told = [line.split() for line in text.splitlines()]
    assert ["student", "task", "agreement"] in told
    assert ["second", "b", "0.750"] in told


def test_it_draws_scores_curves_and_gains(tmp_path: Path) -> None:
    report_sequence([write_root(tmp_path / "out")], STAGES, tmp_path / "out")
    for name in ("scores", "curves", "transfer"):
        with Image.open(tmp_path / "out" / "report" / f"{name}.png") as picture:
            assert min(picture.size) > 300


def test_of_several_runs_it_tells_means_and_keeps_the_rows_of_each(tmp_path: Path) -> None:
    roots = [write_root(tmp_path / f"seed_{seed}") for seed in range(2)]
    worse = {**SECOND, "b": (0.5, (0.0, 0.1, 0.2))}
    other = tmp_path / "seed_1" / "other"
    write_stage(other, worse, "b")
    for name in ("report/test_scores.csv", "metrics.csv"):
        (other / name).replace(tmp_path / "seed_1" / "second" / name)
    text = report_sequence(roots, STAGES, tmp_path)
    lines = [line.split() for line in text.splitlines()]
    assert ["second", "0.300", "0.750*"] in lines
    # Areas 140 and 20 over 80; the second run never gets there.
    row = next(line for line in lines if line[:2] == ["second", "b"])
    assert row[2:4] == ["0.100", "1.000"]
    assert " ".join(row[4:]).startswith("100 (1 of 2 runs) 200")
    assert [row["run"] for row in rows_of(tmp_path / "report" / "retention.csv")] == [
        "seed_0",
        "seed_1",
    ]


def test_stages_by_themselves_have_neither_gains_nor_losses(tmp_path: Path) -> None:
    write_root(tmp_path)
    text = report_sequence([tmp_path], STAGES[:2], tmp_path)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "scores.csv",
        "scores.png",
        "curves.png",
    }
    assert "forgetting" not in text


def test_chains_end_where_no_stage_goes_on() -> None:
    def stage(name: str, *parents: str) -> ReportedStage:
        return ReportedStage(name=name, learned=("a",), scored=("a",), parents=parents)

    stages = [stage("a"), stage("b", "a"), stage("c", "b"), stage("d", "a"), stage("e")]
    found = [[one.name for one in chain] for chain in chains(stages)]
    assert found == [["a", "b", "c"], ["a", "d"], ["e"]]
    joined = [*stages, stage("f", "d", "e"), stage("g", "f")]
    found = [[one.name for one in chain] for chain in chains(joined)]
    assert found == [["a", "b", "c"], ["f", "g"]]


def test_stages_that_share_a_source_and_a_target_have_rows_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    write_root(tmp_path)
    write_stage(tmp_path / "third", SECOND, "b")
    third = replace(STAGES[2], name="third")

    def draw(gains: np.ndarray, sources: list[str], targets: list[str]) -> Figure:
        drawn.append(sources)
        return transfer_gains(gains, sources, targets)

    monkeypatch.setattr("lit_mtdqn.analysis.sequence_report.transfer_gains", draw)
    report_sequence([tmp_path], [*STAGES, third], tmp_path)
    assert drawn == [["a (second)", "a (third)"]]


def gains_of(root: Path, stages: list[ReportedStage]) -> list[dict[str, str]]:
    report_sequence([root], stages, root)
    return rows_of(root / "report" / "transfer.csv")


def test_runs_that_play_more_tasks_are_compared_by_the_env_steps_of_the_one(tmp_path: Path) -> None:
    write_stage(tmp_path / "alone", SCRATCH, "b")
    write_stage(tmp_path / "joint", SCRATCH, "b", beside=2)
    joint = ReportedStage(name="joint", learned=("b",), scored=TASKS, against="alone")
    alone = ReportedStage(name="alone", learned=("b",), scored=TASKS)
    (gained,) = gains_of(tmp_path, [alone, joint])
    assert (gained["steps"], gained["scratch_steps"]) == ("200", "200")
    assert float(gained["transfer_ratio"]) == pytest.approx(0.0)
    assert float(gained["after_5_episodes"]) == pytest.approx(0.4)


def test_a_stage_that_starts_from_one_of_several_says_so_and_keeps_no_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str]] = []
    write_root(tmp_path)
    both = replace(STAGES[2], parents=("first", "scratch"))

    def draw(gains: np.ndarray, sources: list[str], targets: list[str]) -> Figure:
        drawn.append(sources)
        return transfer_gains(gains, sources, targets)

    monkeypatch.setattr("lit_mtdqn.analysis.sequence_report.transfer_gains", draw)
    text = report_sequence([tmp_path], [*STAGES[:2], both], tmp_path)
    assert drawn == [["a | b"]]
    assert "forgetting" not in text


def test_a_stage_counts_in_the_runs_that_have_finished_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[object] = []
    roots = [write_root(tmp_path / f"seed_{seed}") for seed in range(3)]
    # One was killed in its last stage, one learned nothing from scratch.
    (roots[1] / "second" / "report" / "test_scores.csv").unlink()
    nothing = tmp_path / "nothing"
    write_stage(nothing, {"b": (0.0, (0.0, 0.0, 0.0))}, "b")
    (nothing / "metrics.csv").replace(roots[2] / "scratch" / "metrics.csv")
    monkeypatch.setattr("lit_mtdqn.analysis.sequence_report.transfer_gains", drawn.append)
    text = report_sequence(roots, STAGES, tmp_path)
    lines = [line.split() for line in text.splitlines()]
    assert ["second", "0.300", "1.000*"] in lines
    assert "Not finished: seed_1/second" in text
    row = next(line for line in lines if line[:2] == ["second", "b"])
    assert " ".join(row[3:]).startswith("1.750 (1 of 2 runs) 100 (1 of 2 runs) 200 (1 of 2 runs)")
    # A picture has no room for that.
    assert drawn == []
    assert not (tmp_path / "report" / "transfer.png").exists()


def test_what_was_given_is_told_from_what_the_network_could_do_at_first(tmp_path: Path) -> None:
    write_root(tmp_path)
    first = {**FIRST, "b": (0.2, (0.15, 0.1, 0.2))}
    other = tmp_path / "other"
    write_stage(other, first, "a")
    (other / "metrics.csv").replace(tmp_path / "first" / "metrics.csv")
    report_sequence([tmp_path], STAGES, tmp_path)
    (kept,) = rows_of(tmp_path / "report" / "retention.csv")
    assert float(kept["forward_transfer"]) == pytest.approx(0.05)


def test_raw_returns_are_not_averaged_with_scores(tmp_path: Path) -> None:
    write_root(tmp_path)
    report_sequence([tmp_path], [replace(stage, scored=("b",)) for stage in STAGES], tmp_path)
    (kept,) = rows_of(tmp_path / "report" / "retention.csv")
    assert (kept["tasks"], kept["backward_transfer"]) == ("b", "")
    report_sequence([tmp_path], [replace(stage, scored=()) for stage in STAGES], tmp_path / "raw")
    assert not (tmp_path / "raw" / "report" / "retention.csv").exists()
