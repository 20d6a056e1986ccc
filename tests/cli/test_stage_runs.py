"""Which stages of a sequence run, go on, are left out and refused; stages are made up."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_mtdqn.cli.children import Children
from lit_mtdqn.cli.sequence_file import Stage
from lit_mtdqn.cli.stage_runs import check_begun, run_stages
from lit_mtdqn.cli.stages import Planned

HEADER = "task,score\n"
REPLAY = {"class_path": "lit_mtdqn.callbacks.ReplayCheckpoint"}


def planned(
    root: Path,
    name: str,
    parent: str | None = None,
    *,
    reaches: float | None = None,
    keeps_replay: bool = False,
    callbacks: list[dict[str, Any]] | None = None,
    **data: Any,
) -> Planned:
    """Return a stage that learns `count` and holds out `far`."""
    sources = () if parent is None else ({"stage": (parent,)},)
    tasks = {"count": {"learns": True}, "far": {"learns": False}}
    return Planned(
        stage=Stage(name=name, overlay={}, sources=sources, reaches=reaches),
        root=root,
        command=["fit", name],
        config={"data": {"tasks": tasks, **data}, "trainer": {"callbacks": callbacks or []}},
        keeps_replay=keeps_replay,
    )


def leave(folder: Path, *names: str) -> None:
    """Leave empty files in the folder of a stage."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def finish(one: Planned, score: float = 0.5) -> None:
    """Leave what a finished run leaves."""
    folder = one.root / one.stage.name
    leave(folder, "checkpoints/last.ckpt", "report/test_scores.csv")
    (folder / "config.yaml").write_text(yaml.safe_dump(one.config))
    (folder / "report/test_scores.csv").write_text(f"{HEADER}count,{score}\nfar,0.0\n")


def unreadable(argv: list[str], *, builds: bool) -> Any:
    """Refuse what was saved, as of a package that knew other options."""
    raise SystemExit(2)


class Recorder(Children):
    """Starts nothing; stages without an exit code of their own finish."""

    def __init__(self, *stages: Planned, **codes: int) -> None:
        super().__init__()
        self.stages = {one.stage.name: one for one in stages}
        self.codes = codes
        self.options: dict[str, str] = {}

    def run(self, arguments: Any) -> int:
        _, name, self.options[name] = arguments
        if name not in self.codes:
            finish(self.stages[name])
        return self.codes.get(name, 0)


def test_a_failure_leaves_out_what_needs_it_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = (("a", None), ("b", "a"), ("c", "b"), ("alone", None), ("d", "alone"), ("other", None))
    stages = [planned(tmp_path, name, parent) for name, parent in pairs]
    children = Recorder(*stages, a=3, other=4)
    assert run_stages(stages, tmp_path, children) == 3
    assert list(children.options) == ["a", "alone", "d", "other"]
    said = capsys.readouterr().out.splitlines()
    assert said[:4] == [
        "Stage 1 of 6: a",
        "Stage a failed.",
        "Stage 2 of 6: b with weights of a: left out, because of a.",
        "Stage 3 of 6: c with weights of b: left out, because of b.",
    ]
    again = Recorder(*stages)
    assert run_stages(stages, tmp_path, again) == 0
    assert list(again.options) == ["a", "b", "c", "other"]


@pytest.mark.parametrize("code", [130, 143])
def test_what_stops_a_stage_stops_the_sequence(code: int, tmp_path: Path) -> None:
    stages = [planned(tmp_path, name) for name in ("first", "other")]
    children = Recorder(*stages, first=code)
    assert run_stages(stages, tmp_path, children) == code
    assert list(children.options) == ["first"]


def test_a_stage_that_ends_well_but_has_no_test_has_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [planned(tmp_path, "first"), planned(tmp_path, "second", "first")]
    children = Recorder(*stages, first=0)
    assert run_stages(stages, tmp_path, children) == 1
    assert list(children.options) == ["first"]
    assert "error: `stages.first` must end with a test in its report" in capsys.readouterr().err


@pytest.mark.parametrize(("score", "code"), [(0.9, 0), (0.89, 1)])
def test_nothing_builds_on_a_stage_that_has_not_reached_its_score(
    score: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [planned(tmp_path, "first", reaches=0.9), planned(tmp_path, "second", "first")]
    finish(stages[0], score)
    children = Recorder(*stages)
    assert run_stages(stages, tmp_path, children) == code
    assert list(children.options) == ([] if code else ["second"])
    said = "error: `stages.first` must reach a score of 0.9 in every task"
    assert (said in capsys.readouterr().err) == bool(code)


@pytest.mark.parametrize(
    ("keeps_replay", "left", "option"),
    [
        (False, [], "--overwrite=true"),
        (False, ["checkpoints/last.ckpt"], "--ckpt_path=last"),
        (True, ["checkpoints/last.ckpt"], "--overwrite=true"),
        (
            True,
            ["checkpoints/last.ckpt", "replay/rank_0/count/replay.json"],
            "--overwrite=true",
        ),
        (
            True,
            [
                "checkpoints/last.ckpt",
                "replay/rank_0/count/replay.json",
                "replay/rank_0/far/replay.json",
            ],
            "--ckpt_path=last",
        ),
    ],
)
def test_a_stage_goes_on_with_its_checkpoint_unless_the_replay_that_others_take_is_lost(
    keeps_replay: bool, left: list[str], option: str, tmp_path: Path
) -> None:
    stage = planned(tmp_path, "first", keeps_replay=keeps_replay)
    leave(tmp_path / "first", *left)
    children = Recorder(stage)
    assert run_stages([stage], tmp_path, children) == 0
    assert children.options == {"first": option}


def test_a_stage_does_not_go_on_from_one_that_is_gone(tmp_path: Path) -> None:
    stages = [planned(tmp_path, "first"), planned(tmp_path, "second", "first")]
    finish(stages[1])
    sentence = r"`stages\.second` must not have begun before the stages \['first'\]"
    with pytest.raises(ValueError, match=sentence):
        check_begun(stages, tmp_path, unreadable)


def transfer(source: Path, **arguments: Any) -> dict[str, Any]:
    arguments = {"source": str(source), **arguments}
    return {"class_path": "lit_mtdqn.callbacks.WeightTransfer", "init_args": arguments}


def test_a_stage_that_is_defined_otherwise_now_is_refused_by_the_values_that_differ(
    tmp_path: Path,
) -> None:
    source = tmp_path / "first"
    finish(planned(tmp_path, "one", callbacks=[transfer(source, keep=1.0)], num_envs=2))
    now = planned(tmp_path, "one", callbacks=[transfer(source, keep=0.5)], num_envs=2)
    with pytest.raises(ValueError, match=r"`stages\.one` must be as it was when it began") as error:
        check_begun([now], tmp_path, unreadable)
    difference = "trainer.callbacks.0.init_args.keep = 0.5 instead of 1.0"
    assert f"Got '{tmp_path / 'one'} with {difference}'." in str(error.value)
    many = planned(tmp_path, "one", a=0, b=0, c=0, d=0, e=0, f=0)
    with pytest.raises(ValueError, match=r"data\.d = 0 instead of None and 7 more'\.$"):
        check_begun([many], tmp_path, unreadable)


def test_an_option_that_is_new_since_had_its_default(tmp_path: Path) -> None:
    finish(planned(tmp_path, "one", lr=0.1))

    def rehearse(argv: list[str], *, builds: bool) -> Any:
        assert (argv, builds) == (["fit", f"--config={tmp_path / 'one/config.yaml'}"], False)
        return planned(tmp_path, "one", lr=0.1, added=1).config

    check_begun([planned(tmp_path, "one", lr=0.1, added=1)], tmp_path, rehearse)
    with pytest.raises(ValueError, match=r"data\.added = 2 instead of 1'\.$"):
        check_begun([planned(tmp_path, "one", lr=0.1, added=2)], tmp_path, rehearse)


def test_a_sequence_that_was_moved_is_the_same(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for root in (old, new):
        stage = planned(root, "one", callbacks=[transfer(root / "first")])
        if root == old:
            finish(stage)
            old.rename(new)
    check_begun([stage], new, unreadable)
    other = planned(new, "one", callbacks=[transfer(new / "second")])
    with pytest.raises(ValueError, match=r"init_args\.source = .+/new/second"):
        check_begun([other], new, unreadable)


def test_another_seed_makes_another_stage_unless_all_are_reported(tmp_path: Path) -> None:
    one = planned(tmp_path, "one")
    one.config["seed_everything"] = 1
    finish(one)
    one.config["seed_everything"] = 2
    check_begun([one], tmp_path, unreadable, any_seed=True)
    with pytest.raises(ValueError, match="seed_everything = 2 instead of 1"):
        check_begun([one], tmp_path, unreadable)


def test_a_new_stage_may_take_the_replay_of_a_finished_one_if_that_has_kept_it(
    tmp_path: Path,
) -> None:
    finish(planned(tmp_path, "one"))
    now = planned(tmp_path, "one", callbacks=[REPLAY], keeps_replay=True)
    with pytest.raises(ValueError, match=r"`stages\.one` must have kept its replay"):
        check_begun([now], tmp_path, unreadable)
    leave(tmp_path / "one", *(f"replay/rank_0/{name}/replay.json" for name in ("count", "far")))
    check_begun([now], tmp_path, unreadable)
