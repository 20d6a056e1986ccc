"""What a sequence file may say, and what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.asserts import complaint

from lit_mtdqn.cli.sequence_file import read_sequence, with_folders

CONFIG = "configs/dqn/cartpole.yaml"


def write(folder: Path, **given: Any) -> Path:
    path = folder / "sequence.yaml"
    path.write_text(yaml.safe_dump({"configs": [CONFIG], **given}, sort_keys=False))
    return path


def test_stages_come_in_the_order_of_the_file_with_what_all_share_first(tmp_path: Path) -> None:
    overlay = {"total_env_steps": 10}
    stages = {
        "one": {"arguments": ["--b=2"], "configs": ["configs/overlays/smoke.yaml"]},
        "two": {"data": overlay, "tasks": "cartpole"},
    }
    found = read_sequence(write(tmp_path, arguments=["--a=1"], stages=stages))
    one, two = found.stages
    assert found.evaluates_all
    assert (one.name, one.arguments) == ("one", ("--a=1", "--b=2"))
    assert one.configs == (CONFIG, "configs/overlays/smoke.yaml")
    assert one.tasks is None
    assert (two.arguments, two.overlay, two.tasks) == (("--a=1",), {"data": overlay}, ("cartpole",))


def test_a_stage_says_which_ones_it_needs(tmp_path: Path) -> None:
    last = {
        "from": [{"stage": ["a", "b"], "parts": ["trunk"]}, "c"],
        "replay_from": "b",
        "arguments": ["--model.teachers.x=${stage:d}/checkpoints/last.ckpt"],
        "model": {"init_args": {"objectives": [{"teachers": {"x": "${stage:c}"}}]}},
    }
    stages = {"a": None, "b": {}, "c": {}, "d": {}, "last": last}
    *_, found = read_sequence(write(tmp_path, stages=stages)).stages
    assert found.parents == ("a", "b", "c")
    assert found.replay_from == ("b",)
    assert found.needs == ("a", "b", "c", "d")
    assert found.sources == ({"stage": ("a", "b"), "parts": ["trunk"]}, {"stage": ("c",)})


def test_names_of_stages_become_their_folders() -> None:
    given = {"a": ["${stage:x}/last", 3], "b": "${oc.env:HOME} ${stage:y}"}
    expected = {"a": ["out/x/last", 3], "b": "${oc.env:HOME} out/y"}
    assert with_folders(given, Path("out")) == expected


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"stages": {}}, "stages"),
        ({"stages": ["a"]}, "stages"),
        ({"stages": {"a": {}}, "stage": 1}, "{path}"),
        ({"stages": {"report": {}}}, "stages"),
        ({"stages": {"seed_0": {}}}, "stages"),
        ({"stages": {"a b": {}}}, "stages"),
        ({"stages": {"a": {"form": "b"}}}, "stages.a"),
        ({"stages": {"a": {"from": "a"}}}, "stages.a.from"),
        ({"stages": {"a": {"from": "b"}, "b": {"from": "a"}}}, "stages.a.from"),
        ({"stages": {"a": {}, "b": {"from": "c"}}}, "stages.b.from"),
        ({"stages": {"a": {}, "b": {"from": {"stage": "a", "part": 1}}}}, "stages.b.from"),
        ({"stages": {"a": {}, "b": {"from": {"parts": ["all"]}}}}, "stages.b.from"),
        ({"stages": {"a": {}, "b": {"replay_from": ["a", "d"]}}}, "stages.b.replay_from"),
        ({"stages": {"a": {"arguments": ["--x=${stage:b}"]}, "b": {}}}, "stages.a"),
        ({"stages": {"a": {"against": "a"}}}, "stages.a.against"),
        ({"stages": {"a": {"against": ["b"]}, "b": {}}}, "stages.a.against"),
        ({"stages": {"a": {"reaches": "all"}}}, "stages.a.reaches"),
        ({"stages": {"a": {"reaches": True}}}, "stages.a.reaches"),
        ({"stages": {"a": {"configs": ["nowhere.yaml"]}}}, "stages.a.configs"),
        ({"stages": {"a": {}}, "configs": []}, "stages.a.configs"),
        ({"stages": {"a": {"arguments": [3]}}}, "stages.a.arguments"),
        ({"stages": {"a": {"tasks": []}}}, "stages.a.tasks"),
        ({"stages": {"a": {}}, "evaluate_all": "some"}, "evaluate_all"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    given: dict[str, Any], name: str, tmp_path: Path
) -> None:
    path = write(tmp_path, **given)
    with pytest.raises(ValueError, match=complaint(name.format(path=path))):
        read_sequence(path)


def test_a_missing_file_and_a_key_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=complaint("FILE")):
        read_sequence(tmp_path / "nowhere.yaml")
    path = tmp_path / "twice.yaml"
    path.write_text(f"configs: [{CONFIG}]\nstages:\n  a: {{}}\n  a: {{}}\n")
    with pytest.raises(ValueError, match=r"names each key once\. Got .+duplicate key a"):
        read_sequence(path)
