"""Studies of `benchmarks` name what exists, and are summed up as they say."""

from pathlib import Path
from typing import Any

import methods_table
import numpy as np
import pytest
import sequence_summary
import study as studying
import study_runs
import summary
import yaml
from helpers.asserts import complaint

from lit_mtdqn.analysis.metrics_file import Curve
from lit_mtdqn.cli.main import RunCLI
from lit_mtdqn.cli.sequence_file import read_sequence

TRANSFER = Path("benchmarks/transfer")
STUDIES = {
    path: yaml.safe_load(path.read_text())
    for path in sorted([*Path("benchmarks/multitask").glob("*.yaml"), *TRANSFER.glob("*.yaml")])
}
OF_CELLS = {path.stem: study for path, study in STUDIES.items() if "cells" in study}
OF_SEQUENCES = {path.stem: study for path, study in STUDIES.items() if "sequence" in study}
SUITE = {
    "data": {
        "tasks": {"a": {}, "b": {}, "c": {"acts": False}, "d": {"learns": False}},
        "total_env_steps": 1000,
        "evaluate_every_env_steps": 100,
        "num_envs": 4,
    }
}


def _cells() -> list[Any]:
    """Return cells of all studies, one of those that differ in the values of arguments alone."""
    found: dict[str, Any] = {}
    for name, study in OF_CELLS.items():
        for cell, change in study["cells"].items():
            words = tuple(argument.partition("=")[0] for argument in change.get("arguments", ()))
            kind = (name, words, change.get("suite"), change.get("only"), "each_task" in change)
            # What lays no more than a method over the suite is tested where methods are.
            if set(change) != {"overlays"}:
                found.setdefault(repr(kind), pytest.param(study, cell, id=f"{name}-{cell}"))
    return list(found.values())


def test_there_are_studies_to_test() -> None:
    assert min(len(OF_CELLS), len(OF_SEQUENCES)) >= 5


@pytest.mark.parametrize(("study", "cell"), _cells())
def test_a_cell_is_a_command_that_can_be_understood(
    study: dict[str, Any],
    cell: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = {**study, "cells": {cell: study["cells"][cell]}}
    run, *_ = study_runs.runs_of(one, [0])
    assert isinstance(run, study_runs.FitRun)
    command = run.command(tmp_path / "run")
    with pytest.raises(SystemExit) as ended:
        RunCLI(args=[*command[3:], "--print_config"])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert set(run.only or printed["data"]["tasks"]) <= set(printed["data"]["tasks"])


@pytest.mark.parametrize("name", OF_CELLS)
def test_overlays_of_a_study_are_methods(name: str) -> None:
    # Those run in tests of their own.
    study = OF_CELLS[name]
    overlays = [path for change in study["cells"].values() for path in change.get("overlays", ())]
    assert all(Path(path).is_file() for path in overlays)
    assert {Path(path).parent for path in overlays} <= {methods_table.METHODS}


def test_a_suite_with_fewer_tasks_keeps_the_env_steps_of_each() -> None:
    data = study_runs.reduced(SUITE, ("b",))["data"]
    assert data == {
        "tasks": {"b": {}, "c": {"acts": False}, "d": {"learns": False}},
        "total_env_steps": 500,
        "evaluate_every_env_steps": 50,
        "num_envs": 4,
    }


def test_the_env_steps_that_a_study_sets_are_shared_by_specialists_and_part_of_its_definition(
    tmp_path: Path,
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    study = {"suite": str(path), "cells": {"all": {}, "specialists": {"each_task": True}}}
    shorter = {**study, "data": {"total_env_steps": 300}}
    runs = [list(study_runs.runs_of(one, [0])) for one in (study, shorter)]
    fits = [run for run in runs[1] if isinstance(run, study_runs.FitRun)]
    assert [run.whole_suite["data"]["total_env_steps"] for run in fits] == [300, 150, 150]
    hashes = [{run.definition() for run in one} for one in runs]
    assert not hashes[0] & hashes[1]


def test_specialists_are_a_run_for_each_task_that_is_played_and_learned(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    study = {"suite": str(path), "cells": {"all": {}, "specialists": {"each_task": True}}}
    names = [(*run.cells, run.seed, run.name) for run in study_runs.runs_of(study, [3, 4])]
    per_seed = [("all", "all"), ("specialists", "a"), ("specialists", "b")]
    assert names == [(cell, seed, name) for seed in (3, 4) for cell, name in per_seed]


def _rows(cell: str, scores: dict[int, tuple[float, float]], steps: str) -> list[dict[str, Any]]:
    shared = {"cell": cell, "run": "all", "mean": 0, "std": 0, "success": "", "episodes": 1}
    cost = {"env_steps": 2000, "updates": 1, "parameters": 10, "seconds": 9.0, "cpu_seconds": 5.0}
    return [
        {
            **shared,
            **cost,
            "seed": seed,
            "task": task,
            "score": score,
            "area": score / 2,
            "steps_to_threshold": steps,
        }
        for seed, both in scores.items()
        for task, score in zip("ab", both, strict=True)
    ]


def _write(path: Path) -> dict[str, summary.Cell]:
    studying.append(path, _rows("control", {0: (0.5, 0.7), 1: (0.5, 0.7)}, "3000"))
    studying.append(path, _rows("better", {0: (0.75, 1.05), 1: (0.75, 1.05)}, ""))
    studying.append(path, _rows("better", {2: (9.0, 9.0)}, "")[:1])
    return summary.read_cells(path)


def test_what_is_finished_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    assert studying.done(path) == {}
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump(SUITE))
    study = {"suite": str(suite), "cells": {"control": {}}}
    first, second = study_runs.runs_of(study, [0, 1])
    definition = first.definition()
    rows = _rows("control", {0: (0.5, 0.7)}, "")
    studying.append(path, [{**row, "definition": definition} for row in rows])
    assert studying.missing([first, second], path) == [second]


def test_rows_of_a_run_that_has_been_defined_otherwise_since_are_refused(tmp_path: Path) -> None:
    path, suite = tmp_path / "study.csv", tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump(SUITE))
    study: dict[str, Any] = {"suite": str(suite), "cells": {"control": {}}}
    (run,) = study_runs.runs_of(study, [0])
    rows = _rows("control", {0: (0.5, 0.7)}, "")
    definition = run.definition()
    studying.append(path, [{**row, "definition": definition} for row in rows])
    study["cells"]["control"] = {"arguments": ["--model.init_args.max_grad_norm=1"]}
    with pytest.raises(ValueError, match=complaint("control")):
        studying.missing(study_runs.runs_of(study, [0]), path)


def test_cells_hold_the_seeds_that_have_all_tasks(tmp_path: Path) -> None:
    cells = _write(tmp_path / "study.csv")
    assert cells["better"].scores.tolist() == [[0.75, 1.05], [0.75, 1.05]]
    assert (cells["better"].parameters, cells["better"].seconds) == (10, 5.0)


def test_cells_are_compared_on_the_tasks_that_all_have(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    studying.append(path, _rows("both", {0: (0.5, 0.7)}, ""))
    studying.append(path, _rows("first", {0: (0.6, 0.9)}, "")[:1])
    cells = summary.read_cells(path)
    assert {name: cell.scores.tolist() for name, cell in cells.items()} == {
        "both": [[0.5]],
        "first": [[0.6]],
    }


def test_a_gain_is_a_difference_of_means_with_its_interval(tmp_path: Path) -> None:
    cells = _write(tmp_path / "study.csv")
    # Seeds do not differ: there is nothing to be unsure of.
    found = summary.gain(cells["better"], cells["control"])
    assert found == pytest.approx((0.3, 0.3, 0.3))


def test_one_seed_says_nothing_of_others(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    studying.append(path, _rows("control", {0: (0.4, 0.6), 1: (0.5, 0.7)}, ""))
    studying.append(path, _rows("better", {0: (0.9, 0.9)}, ""))
    cells = summary.read_cells(path)
    assert summary.gain_text(cells["better"], cells["control"]) == "+0.350 (one seed)"


def test_the_interval_of_a_gain_is_that_of_welchs_t(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    studying.append(path, _rows("control", {0: (0.4, 0.6), 1: (0.5, 0.7), 2: (0.6, 0.8)}, ""))
    studying.append(path, _rows("better", {0: (0.9, 0.9), 1: (0.8, 0.8), 2: (1.0, 1.0)}, ""))
    cells = summary.read_cells(path)
    # Means 0.6 and 0.9, both of variance 0.01 over 3 seeds: 4 degrees of freedom, t = 2.776.
    half = 2.7764451 * (0.01 / 3 + 0.01 / 3) ** 0.5
    found = summary.gain(cells["better"], cells["control"])
    assert found == pytest.approx((0.3, 0.3 - half, 0.3 + half))


def test_a_ratio_to_specialists_is_that_of_mean_scores(tmp_path: Path) -> None:
    cells = _write(tmp_path / "study.csv")
    found = summary.ratio(cells["better"], cells["control"], np.random.default_rng(0))
    assert found == pytest.approx((1.5, 1.5, 1.5))


def test_a_threshold_that_half_of_the_seeds_miss_is_never_reached(tmp_path: Path) -> None:
    cells = _write(tmp_path / "study.csv")
    assert summary.steps_to_threshold(cells["control"]) == "3k"
    assert summary.steps_to_threshold(cells["better"]) == "never"


def test_the_table_has_the_best_cell_first_and_compares_with_control_and_specialists(
    tmp_path: Path,
) -> None:
    cells = _write(tmp_path / "study.csv")
    _, _, first, second = summary.table(cells, "control", "control")
    assert first.startswith("| better | 2 | 0.900 (0.900, 0.900) | +0.300 (+0.300, +0.300) |")
    assert "| 1.500 (1.500, 1.500) |" in first
    assert second.startswith("| control | 2 | 0.600")


def test_every_task_has_its_mean_and_range(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    studying.append(path, _rows("control", {0: (0.5, 0.7), 1: (0.6, 0.9)}, ""))
    *_, line = summary.task_table(summary.read_cells(path))
    assert line == "| control | 0.550 (0.500 to 0.600) | 0.800 (0.700 to 0.900) |"


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    summary.draw(_write(tmp_path / "study.csv"), "control", tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 0


def _stage_rows(
    stage: str, scores: dict[int, float], parameters: int, **given: str
) -> list[dict[str, Any]]:
    said = {"role": "learns", "agreement": "", "catch_up": "", "earlier_env_steps": 0}
    rows = _rows(stage, {seed: (score, score) for seed, score in scores.items()}, "")
    own = [row for row in rows if row["task"] == "a"]
    return [{**row, **said, "parameters": parameters, **given} for row in own]


def test_stages_are_compared_seed_by_seed(tmp_path: Path) -> None:
    path = tmp_path / "sequence.csv"
    studying.append(path, _stage_rows("teacher", {0: 0.5, 1: 1.0, 2: 0.8}, 1000))
    given = {"agreement": "0.9", "earlier_env_steps": "2000", "role": "held_out"}
    studying.append(path, _stage_rows("student", {0: 0.4, 1: 1.0, 2: 0.9}, 40, **given))
    _, _, teacher, student, *_ = sequence_summary.stage_table(path, {"a": "teacher"})
    cells = "| teacher | a | 3 | 0.767 (0.500 to 1.000) |  |  |  | 1,000 | 2,000 (0) |"
    assert teacher == cells
    # Shares 0.8, 1 and 1.125.
    shares = "1.000 (0.800 to 1.125)"
    scores = "0.767 (0.400 to 1.000)"
    assert student == f"| student | (a) | 3 | {scores} | {shares} | 0.900 |  | 40 | 2,000 (2,000) |"


def test_tasks_of_a_stage_have_a_mean_for_each_seed_that_all_have() -> None:
    first = {0: {"score": "0.2", "agreement": "0.5"}, 1: {"score": "1.0", "agreement": ""}}
    second = {0: {"score": "0.6", "agreement": "0.9"}}
    ((seed, row),) = sequence_summary.mean_over_tasks([first, second]).items()
    assert (seed, float(row["score"]), float(row["agreement"])) == (0, 0.4, 0.7)
    assert sequence_summary.mean_over_tasks([{1: first[1]}, {1: first[1]}])[1]["agreement"] == ""


def test_columns_of_gains_are_there_where_a_stage_has_them(tmp_path: Path) -> None:
    path = tmp_path / "sequence.csv"
    studying.append(path, _stage_rows("scratch", {0: 0.5, 1: 1.0}, 1000, jumpstart=""))
    assert "jumpstart" not in "".join(sequence_summary.stage_table(path, {}))
    studying.append(path, _stage_rows("tuned", {0: 0.5, 1: 1.0, 2: 0.9}, 1000, jumpstart="0.25"))
    header, _, scratch, tuned, *_ = sequence_summary.stage_table(path, {"a": "scratch"})
    assert "| catch-up | jumpstart | parameters |" in header
    assert scratch.endswith("|  |  |  | 1,000 | 2,000 (0) |")
    assert tuned.endswith("|  |  | 0.25 | 1,000 | 2,000 (0) |")


def test_scores_after_few_episodes_are_means_of_the_seeds_that_can_tell() -> None:
    rows = {0: {"after_episodes": "0.2 ? 0.5"}, 1: {"after_episodes": "0.4 ? ?"}, 2: {}}
    assert sequence_summary.after_episodes_text(rows) == "0.30, ?, 0.50"
    assert sequence_summary.after_episodes_text({0: {}, 1: {"after_episodes": ""}}) == ""


def test_what_few_episodes_bring_is_written_by_number_of_episodes() -> None:
    metrics = {
        "val/score/a": Curve(np.array([0, 10, 20]), np.array([0.1, 0.3, 0.6])),
        "rollout/episodes/a": Curve(np.array([0, 10, 20]), np.array([0.0, 1.0, 5.0])),
    }
    assert study_runs.after_episodes(metrics, "a") == "0.3000 0.6000 ?"
    assert study_runs.after_episodes({"val/score/a": metrics["val/score/a"]}, "a") == ""


def test_a_stage_catches_up_if_most_seeds_do(tmp_path: Path) -> None:
    rows = {0: {"catch_up": "0.2"}, 1: {"catch_up": "0.5"}, 2: {"catch_up": "never"}}
    assert sequence_summary.catch_up_text(rows) == "0.50"
    assert sequence_summary.catch_up_text({**rows, 3: rows[2], 4: rows[2]}) == "never"
    assert sequence_summary.catch_up_text({0: {"catch_up": ""}}) == ""


def test_the_stages_of_a_sequence_are_its_cells_and_know_what_they_build_on(
    tmp_path: Path,
) -> None:
    run = study_runs.SequenceRun(0, {"sequence": "configs/sequences/forgetting.yaml"})
    assert {"lane_keeping", "ewc_light", "rehearsal_light"} <= set(run.cells)
    before = run.before(run.stages["ewc_light"])
    assert before == ["lane_keeping", "ewc_pedestrian"]


@pytest.mark.parametrize(
    ("ours", "scratch", "share"),
    [
        # From scratch half of the way after 15 steps; 0.5 is its asymptote.
        ([0.2, 0.6, 0.6], [0.0, 0.4, 0.6, 0.5], "0.5000"),
        ([0.9, 0.9, 0.9], [0.0, 0.4, 0.6, 0.5], "0.0000"),
        ([0.0, 0.0, 0.1], [0.0, 0.4, 0.6, 0.5], "never"),
        ([0.0, 0.0, 0.1], [0.5, 0.5, 0.5, 0.5], ""),
    ],
)
def test_catching_up_is_reaching_the_end_of_learning_from_scratch(
    ours: list[float], scratch: list[float], share: str
) -> None:
    curves = [Curve(10 * np.arange(len(one)), np.array(one)) for one in (ours, scratch)]
    assert study_runs.catch_up(*curves) == share


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_a_study_of_a_sequence_divides_by_a_stage_that_learns_the_task(name: str) -> None:
    study = OF_SEQUENCES[name]
    stages = {stage.name: stage for stage in read_sequence(study["sequence"]).stages}
    assert study["reference"]
    for task, stage in study["reference"].items():
        learned = stages[stage].tasks
        assert learned is None or task in learned


def test_every_method_has_a_row_under_its_question() -> None:
    page = "\n".join(methods_table.table())
    overlays = sorted(methods_table.METHODS.glob("*.yaml"))
    assert overlays
    assert all(page.count(f"| `{path.name}` | ") == 1 for path in overlays)
    for name, question in {
        "mmoe": "What tasks share",
        "pcgrad": "How they share one update",
        "popart": "The scale of their values",
        "c51": "What is predicted, and its target",
    }.items():
        _, _, after = page.partition(f"## {question}")
        assert f"| `{name}.yaml` |" in after.partition("##")[0]


def test_what_is_measured_is_the_gain_and_the_time(tmp_path: Path) -> None:
    cells = _write(tmp_path / "study.csv")
    assert (
        methods_table.measured(cells, "control", "better")
        == "+0.300 (+0.300, +0.300), 2 seeds, 1.00x"
    )
    assert methods_table.measured(cells, "control", "unknown") == ""
    assert methods_table.measured(cells, "nothing", "better") == ""


@pytest.mark.parametrize("overlay", methods_table.STAGES)
def test_a_method_is_measured_in_a_stage_that_there_is(overlay: str) -> None:
    assert (methods_table.METHODS / f"{overlay}.yaml").is_file()
    sequence, stage = methods_table.STAGES[overlay]
    stages = read_sequence(OF_SEQUENCES[sequence]["sequence"]).stages
    assert stage in {one.name for one in stages}


def test_what_is_measured_of_a_stage_is_its_share_of_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "transfer"
    place.mkdir()
    (place / "steps.yaml").write_text("reference: {a: scratch, other: scratch}")
    studying.append(place / "steps.csv", _stage_rows("scratch", {0: 0.5, 1: 1.0}, 1))
    studying.append(place / "steps.csv", _stage_rows("tuned", {0: 0.5, 1: 0.9}, 1, catch_up="0.2"))
    for name in ("HERE", "RESULTS"):
        monkeypatch.setattr(methods_table, name, tmp_path)
    stages = {"fine_tuning": ("steps", "tuned"), "rehearsal": ("steps", "unknown")}
    monkeypatch.setattr(methods_table, "STAGES", stages)
    said = "`steps` tuned: a 0.950 (0.900 to 1.000), catch-up 0.20"
    assert methods_table.stage_text("fine_tuning") == said
    assert methods_table.stage_text("rehearsal") == methods_table.stage_text("ewc") == ""


def test_the_page_of_methods_is_up_to_date() -> None:
    written = (methods_table.METHODS / "README.md").read_text()
    assert written.endswith("\n".join(methods_table.table()))
