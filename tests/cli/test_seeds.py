from pathlib import Path

import pytest
from helpers.asserts import complaint

from lit_mtdqn.cli import main
from lit_mtdqn.cli.children import Children
from lit_mtdqn.cli.seeds import parse_seeds, run_seeds


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..4", [0, 1, 2, 3, 4]), ("7", [7]), ("0,3,7", [0, 3, 7]), ("2..2", [2])]
)
def test_seeds_read_like_ranges_and_lists(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3..1", "1,,2"])
def test_other_texts_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"`seeds` must read like 0\.\.4 or 0,3,7\. Got"):
        parse_seeds(text)


def test_each_seed_gets_its_own_process_and_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _record(monkeypatch, codes=[0, 3])
    assert run_seeds(["fit", "--run_dir=mine", "--config=a.yaml"], [4, 5], "out", jobs=1) == 3
    assert commands == [
        [
            *("fit", "--run_dir=mine", "--config=a.yaml", "--seeds=null"),
            *(f"--seed_everything={seed}", f"--run_dir={Path('out') / f'seed_{seed}'}"),
        ]
        for seed in (4, 5)
    ]


def test_runs_side_by_side_draw_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _record(monkeypatch, codes=[0, 0])
    assert run_seeds(["fit"], [0, 1], "out", jobs=2) == 0
    assert all("--trainer.enable_progress_bar=false" in command for command in commands)


def test_no_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match=complaint("jobs")):
        run_seeds(["fit"], [0], "out", jobs=0)


def test_seeds_of_yaml_and_of_the_command_line_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path / "seeds.yaml"
    overlay.write_text("seeds: 0..1\njobs: 2")
    config = ["fit", "--config=configs/dqn/cartpole.yaml", f"--run_dir={tmp_path / 'out'}"]
    yaml = _seeds_of(monkeypatch, [*config, f"--config={overlay}"])
    assert yaml == _seeds_of(monkeypatch, [*config, "--seeds", "0..1", "--jobs=2"])
    assert yaml == [("0", str(tmp_path / "out/seed_0")), ("1", str(tmp_path / "out/seed_1"))]
    overlay.write_text("seeds: 3")
    assert _seeds_of(monkeypatch, [*config, f"--config={overlay}"]) == [
        ("3", str(tmp_path / "out/seed_3"))
    ]


def test_seeds_without_a_folder_share_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    arguments = ["fit", "--config=configs/dqn/cartpole.yaml", "--seeds=0,3"]
    folders = [Path(folder) for _, folder in _seeds_of(monkeypatch, arguments)]
    assert [folder.name for folder in folders] == ["seed_0", "seed_3"]
    assert {folder.parent.parent for folder in folders} == {Path("runs/dqn/cartpole")}


def test_a_childs_own_command_line_makes_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a child is started with switches off the seeds that it was given before."""
    commands = _record(monkeypatch, codes=[0])
    config = ["fit", "--config=configs/dqn/cartpole.yaml", "--config=configs/overlays/smoke.yaml"]
    overlay = tmp_path / "seeds.yaml"
    overlay.write_text("seeds: 7")
    quiet = "--trainer.enable_progress_bar=false"
    with pytest.raises(SystemExit):
        main([*config, f"--config={overlay}", f"--run_dir={tmp_path / 'out'}", quiet])
    main(commands[0])
    saved = (tmp_path / "out" / "seed_7" / "config.yaml").read_text()
    assert "seed_everything: 7" in saved
    assert "seeds:" not in saved


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [("--seeds=many", "`seeds` must read like"), ("--jobs=0", "`jobs` must be at least 1. Got 0.")],
)
def test_bad_seeds_end_in_one_sentence(argument: str, sentence: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: {sentence}"):
        main(["fit", "--config=configs/dqn/cartpole.yaml", "--seeds=0", argument])


def _record(monkeypatch: pytest.MonkeyPatch, codes: list[int]) -> list[list[str]]:
    """Return the arguments of the processes that would have been started."""
    commands: list[list[str]] = []

    def run(_: Children, arguments: list[str]) -> int:
        commands.append(arguments)
        return codes[len(commands) - 1]

    monkeypatch.setattr(Children, "run", run)
    return commands


def _seeds_of(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> list[tuple[str, str]]:
    """Return seed and folder of each run that a command line starts."""
    commands = _record(monkeypatch, codes=[0, 0])
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    parsed = [dict(argument.split("=", 1) for argument in c if "=" in argument) for c in commands]
    return sorted((values["--seed_everything"], values["--run_dir"]) for values in parsed)
