"""Every sequence that is shipped runs."""

import re
from pathlib import Path

import pytest
import yaml
from helpers.sequences import run_stages_here

from lit_mtdqn.cli import main
from lit_mtdqn.cli.sequence_file import read_sequence

SEQUENCES = sorted(Path("configs/sequences").glob("*.yaml"))
SMOKE = ["--config=configs/overlays/smoke.yaml", "--trainer.enable_progress_bar=false"]
BRIEF = [
    *("--data.total_env_steps=null", "--data.total_updates=40"),
    *("--data.evaluate_every_env_steps=200", "--data.eval_max_steps=10"),
    *("--trainer.callbacks+=lit_mtdqn.callbacks.RunReport", "--trainer.callbacks.gifs=false"),
]
# The others do the same with more stages, which takes time.
FAST = ("qdagger_cartpole",)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in FAST else [pytest.mark.slow])
        for path in SEQUENCES
    ],
)
def test_a_sequence_runs_to_its_report(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stages_here(monkeypatch)
    # Nothing is learned in so few updates.
    file = tmp_path / path.name
    file.write_text(re.sub(r"reaches: [\d.]+", "", path.read_text()))
    main(["sequence", str(file), f"--run_dir={tmp_path / 'out'}", *SMOKE, *BRIEF])
    for name in yaml.safe_load(path.read_text())["stages"]:
        assert (tmp_path / "out" / name / "checkpoints" / "last.ckpt").is_file()
    report = {found.name for found in (tmp_path / "out" / "report").iterdir()}
    assert report >= {"scores.csv", "scores.png", "curves.png"}


def test_there_are_sequences_of_all_kinds() -> None:
    names = {path.stem for path in SEQUENCES}
    assert names >= {"teachers", "cartpole_students", "cartpole_physics", "forgetting", *FAST}


@pytest.mark.parametrize("path", SEQUENCES, ids=lambda path: path.stem)
def test_a_sequence_names_stages_before_it_and_files_that_exist(path: Path) -> None:
    assert read_sequence(path).stages


@pytest.mark.parametrize("path", SEQUENCES, ids=lambda path: path.stem)
def test_a_sequence_says_what_it_is_and_how_to_run_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert any(line.startswith(f"# lit-mtdqn sequence {path.as_posix()}") for line in lines)
