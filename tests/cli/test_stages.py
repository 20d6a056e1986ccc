"""The commands that the stages of a sequence become, and what is refused as a whole."""

from pathlib import Path
from typing import Any

import pytest
from helpers.sequences import COUNT, write_sequence

from lit_mtdqn.cli.main import rehearse
from lit_mtdqn.cli.sequence_file import read_sequence, with_source
from lit_mtdqn.cli.stages import Planned, Rehearse, plan


def parse(argv: list[str], *, builds: bool) -> dict[str, Any]:
    """Return a configuration of which nothing is built, which takes a third of the time."""
    return rehearse(argv, builds=False)


def planned(
    folder: Path,
    stages: dict[str, Any],
    *options: str,
    by: Rehearse = parse,
    **given: Any,
) -> dict[str, Planned]:
    file = read_sequence(write_sequence(folder, stages, **given))
    return {one.stage.name: one for one in plan(file, folder / "out", options, by)}


def callbacks_of(one: Planned) -> dict[str, dict[str, Any]]:
    """Return the arguments of all callbacks by class."""
    entries = one.config["trainer"]["callbacks"]
    return {e["class_path"].rpartition(".")[2]: e.get("init_args", {}) for e in entries}


def roles_of(one: Planned) -> dict[str, tuple[bool, bool]]:
    tasks = one.config["data"]["tasks"]
    return {name: (task["acts"], task["learns"]) for name, task in tasks.items()}


def test_a_stage_learns_its_tasks_and_holds_out_the_others(tmp_path: Path) -> None:
    stages = {"first": {"tasks": ["count"]}, "second": {"tasks": "far", "from": "first"}}
    found = planned(tmp_path, stages)
    assert roles_of(found["first"]) == {"count": (True, True), "far": (False, False)}
    assert roles_of(found["second"]) == {"count": (False, False), "far": (True, True)}
    transfer = callbacks_of(found["second"])["WeightTransfer"]
    assert transfer["source"] == str(tmp_path / "out" / "first")
    reported = found["second"].reported
    assert (reported.parents, reported.learned) == (("first",), ("far",))
    assert reported.scored == ("count", "far")


def test_tasks_of_other_stages_are_held_out_unless_all_evaluate_their_own(tmp_path: Path) -> None:
    other = '--data.tasks.other={env: "helpers.counting_env:CountingEnv", gamma: 0.5}'
    stages = {"first": {}, "second": {"arguments": [other]}}
    found = planned(tmp_path, stages)
    assert roles_of(found["first"])["other"] == (False, False)
    assert found["first"].config["data"]["tasks"]["other"]["gamma"] == 0.5
    assert "other" not in roles_of(planned(tmp_path, stages, evaluate_all=False)["first"])


def test_weights_come_by_callbacks_that_are_appended(tmp_path: Path) -> None:
    source = {"stage": ["a", "b"], "parts": ["trunk"], "keep": 0.5}
    found = planned(tmp_path, {"a": {}, "b": {}, "c": {"from": source}})
    transfer = callbacks_of(found["c"])["WeightTransfer"]
    assert transfer["source"] == [str(tmp_path / "out" / name) for name in "ab"]
    assert (transfer["parts"], transfer["keep"]) == (["trunk"], 0.5)
    assert list(callbacks_of(found["c"])) == ["RunReport", "WeightTransfer", "InitialEvaluation"]


def test_a_replay_is_kept_where_a_later_stage_takes_it(tmp_path: Path) -> None:
    stages = {
        "first": {"tasks": ["count"]},
        "second": {"tasks": ["count", "far"], "replay_from": "first"},
        "third": {"tasks": ["far"]},
    }
    found = planned(tmp_path, stages)
    kept = {name: "ReplayCheckpoint" in callbacks_of(one) for name, one in found.items()}
    assert kept == {"first": True, "second": False, "third": False}
    tasks = found["second"].config["data"]["tasks"]
    assert tasks["count"]["replay"] == str(tmp_path / "out/first/replay/rank_0/count")
    assert tasks["far"]["replay"] is None
    assert found["second"].learned == ("count", "far")
    assert [one.keeps_replay for one in found.values()] == [True, False, False]
    lacks = [one.lacks_replay(tmp_path) for one in found.values()]
    assert lacks == [True, False, False]


def test_a_replay_is_kept_where_a_later_stage_names_its_folder(tmp_path: Path) -> None:
    replay = "--data.tasks.count.replay=${stage:first}/replay/rank_0/count"
    found = planned(tmp_path, {"first": {}, "second": {"arguments": [replay]}})
    assert [one.keeps_replay for one in found.values()] == [True, False]


def test_overlays_that_start_from_a_source_start_from_the_stage(tmp_path: Path) -> None:
    """Wherever they name it, and without a second transfer."""
    stages = {"first": {}, "second": {"from": "first", "configs": ["configs/methods/ewc.yaml"]}}
    second = planned(tmp_path, stages)["second"]
    first = str(tmp_path / "out" / "first")
    names = [one["class_path"].rpartition(".")[2] for one in second.config["trainer"]["callbacks"]]
    assert names == ["RunReport", "FisherInformation", "WeightTransfer", "InitialEvaluation"]
    assert callbacks_of(second)["WeightTransfer"]["source"] == first
    (anchor,) = second.config["model"]["init_args"]["objectives"]
    assert anchor["init_args"]["sources"] == [first]


def test_a_folder_that_is_only_named_alike_is_no_source(tmp_path: Path) -> None:
    folders = {
        "a": "runs/sources",
        "b": "old_runs/source",
        "c": "runs/source/checkpoints/last.ckpt",
    }
    found = with_source({"teachers": folders, "note": ["runs/source", "runs/source_2"]}, "seq/pre")
    expected = {**folders, "c": "seq/pre/checkpoints/last.ckpt"}
    assert found == {"teachers": expected, "note": ["seq/pre", "runs/source_2"]}


@pytest.mark.parametrize("source", [None, {"stage": ["first", "other"], "parts": ["trunk"]}])
def test_a_source_that_no_stage_alone_is_must_lie_there(
    source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(Path("configs/methods/l2_sp.yaml").resolve())
    stages = {"first": {}, "other": {}, "last": {"from": source, "configs": [config]}}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SystemExit, match="stage last: `from` must name the one stage that runs/sou"
    ):
        planned(tmp_path, stages)


def test_tasks_that_are_not_evaluated_stay_in_their_stage(tmp_path: Path) -> None:
    old = "--data.tasks.old={env: 'helpers.counting_env:CountingEnv', evaluates: false}"
    found = planned(tmp_path, {"first": {}, "second": {"arguments": [old]}})
    assert [sorted(roles_of(one)) for one in found.values()] == [
        ["count", "far"],
        ["count", "far", "old"],
    ]


def test_the_command_line_overrides_a_stage_but_drops_none_of_what_it_takes(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("trainer: {callbacks: [{class_path: lit_mtdqn.callbacks.ReplayCheckpoint}]}")
    stages = {"a": {}, "b": {"from": "a", "data": {"batch_size": 5}}}
    found = planned(tmp_path, stages, f"--config={overlay}", "--data.batch_size=6")
    assert found["b"].config["data"]["batch_size"] == 6
    assert list(callbacks_of(found["b"])) == [
        "ReplayCheckpoint",
        "WeightTransfer",
        "InitialEvaluation",
    ]


FORGETS = "--data.keeps_replays=false"
KEEPS_ELSEWHERE = (
    "--trainer.callbacks+={class_path: lit_mtdqn.callbacks.ReplayCheckpoint, "
    "init_args: {folder: elsewhere}}"
)


MOVES_OTHERS = (
    "--trainer.callbacks+={class_path: lit_mtdqn.callbacks.WeightTransfer, "
    "init_args: {source: elsewhere}}"
)


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ({"a": {"tasks": ["near"]}}, "`stages.a.tasks` must name tasks of its configurations"),
        (
            {"a": {"arguments": [FORGETS]}, "b": {"replay_from": "a"}},
            "`stages.b.replay_from` must name stages whose `data.keeps_replays` is true",
        ),
        (
            {"a": {"tasks": ["far"]}, "b": {"tasks": ["count"], "replay_from": "a"}},
            "`stages.b.replay_from` must name a stage that keeps a replay of a task learned here",
        ),
        (
            {"a": {}, "b": {"replay_from": "a", "arguments": ["--data.tasks.far.n_step=2"]}},
            "`stages.b: data.tasks.far.n_step` must be 1 as in the stage a",
        ),
        (
            {"a": {"arguments": [KEEPS_ELSEWHERE]}, "b": {"replay_from": "a"}},
            "`stages.a: ReplayCheckpoint.folder` must be null in a stage whose replay",
        ),
        (
            {"a": {}, "b": {"arguments": ["--data.tasks.far.time_limit=5"]}},
            "`stages.b: data.tasks.far.time_limit` must be None as in earlier stages",
        ),
        (
            {"a": {"tasks": ["far"], "against": "b"}, "b": {"tasks": ["count"]}},
            "`stages.a.against` must name a stage that learns a task of this one",
        ),
        # As a run of several seeds, or of another folder, it would be no stage.
        ({"a": {"arguments": ["--seeds=0..1"]}}, "`stages.a: seeds` must not be set"),
        ({"a": {"arguments": ["--ckpt_path=last"]}}, "`stages.a: ckpt_path` must not be set"),
        ({"a": {"arguments": ["--run_dir=here"]}}, "`stages.a: run_dir` must not be set"),
        (
            {
                "a": {},
                "b": {
                    "from": {"stage": "a", "keep": 0.5},
                    "configs": ["configs/methods/head_only.yaml"],
                },
            },
            "`stages.b.from` must be one stage alone where configurations have a WeightTransfer",
        ),
        (
            {"a": {}, "b": {"from": "a", "arguments": [MOVES_OTHERS]}},
            "`stages.b.from` must be one stage alone where configurations have a WeightTransfer",
        ),
        (
            {"a": {"arguments": ["--trainer.logger=false"]}},
            "`stages.a: trainer.logger` must not be",
        ),
    ],
)
def test_stages_that_do_not_fit_together_are_refused(
    stages: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r" must .+ Got .+") as raised:
        planned(tmp_path, stages)
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ({"arguments": ["--data.num_env=3"]}, "stage b: unrecognized arguments: --data.num_env=3"),
        ({"data": {"num_envs": 0}}, "stage b: `num_envs` must be at least 1. Got 0."),
        ({"from": {"stage": "a", "keep": 2.0}}, "stage b: `WeightTransfer.keep` must lie in"),
        ({"model": {"class_path": "lit_mtdqn.DQM"}}, "stage b: `model` must fit its type."),
    ],
)
def test_a_stage_that_could_not_run_is_refused_by_name(
    stage: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as raised:
        planned(tmp_path, {"a": {}, "b": stage}, by=rehearse)
    assert str(raised.value).startswith(f"error: {sentence}")
    assert not (tmp_path / "out").exists()


def test_what_is_no_complaint_names_the_stage_all_the_same(tmp_path: Path) -> None:
    broken = {**COUNT, "env": "helpers.counting_env:CountingVectorEnv", "kwargs": {"nonsense": 1}}
    tasks = f"--data.tasks={{count: {broken}}}"
    with pytest.raises((ValueError, TypeError, SystemExit)) as raised:
        planned(tmp_path, {"a": {"arguments": [tasks]}}, by=rehearse)
    notes = getattr(raised.value, "__notes__", [])
    assert "stage a" in f"{raised.value} {notes}"
