"""What the README and the guide to deployment tell to type works, in order, in an empty folder."""

import importlib.util
import shlex
from pathlib import Path

import pytest
from helpers.documents import ROOT, commands, inline_commands

from lit_mtdqn.cli import main

README = (ROOT / "README.md").read_text()
TRAIN = README.partition("\n## Train\n")[2].partition("\n### ")[0]
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()
# What cannot be run everywhere, and why.
EXCLUDED = {"configs/overlays/wandb.yaml": "sends to a service what is logged"}
NEEDED = {"--format mp4": "av", "lit-mtdqn export": "onnxscript", "--window": "pygame"}
# Makes a command one of seconds.
SMALLER = {
    "lit-mtdqn fit": "--config configs/overlays/smoke.yaml",
    "--ckpt_path last": "--data.total_env_steps=2400",
    "lit-mtdqn export": "--observations 64",
}
QUICK = [
    "lit-mtdqn fit --config configs/dqn/cartpole.yaml --run_dir runs/mine "
    "--model.optimizer.lr=1e-3 --data.tasks.cartpole.gamma=0.98",
    "lit-mtdqn report runs/mine",
    "lit-mtdqn play runs/mine",
]


def runnable(text: str) -> list[str]:
    """Return the commands of shell blocks but for those that cannot be run here."""
    missing = [part for part, name in NEEDED.items() if importlib.util.find_spec(name) is None]
    left_out = (*EXCLUDED, *missing)
    return [one for one in commands(text) if not any(part in one for part in left_out)]


def exit_code(arguments: list[str]) -> object:
    try:
        main(arguments)
    except SystemExit as stop:
        return stop.code
    return 0


def run_all(told: list[str]) -> None:
    for command in told:
        arguments = shlex.split(command)[1:]
        for part, added in SMALLER.items():
            if part in command:
                arguments += shlex.split(added)
        assert exit_code(arguments) in (None, 0), command


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_first_run_is_made_reported_and_filmed(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(QUICK) <= {*commands(README), *inline_commands(README)}
    run_all(QUICK)
    assert Path("runs/mine/report/report.html").is_file()
    assert list(Path("runs/mine/play").glob("*.gif"))
    assert "`lit-mtdqn configs`" in README
    capsys.readouterr()
    run_all(["lit-mtdqn configs"])
    assert "dqn/cartpole.yaml" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)  # Nine runs.
def test_the_commands_of_the_readme_run_in_their_order() -> None:
    told = runnable(TRAIN)
    assert len(told) >= 7
    run_all(told)
    # Two, the reader's own and one of each of five seeds.
    tested = {path.parents[1] for path in Path("runs").rglob("report/test_scores.csv")}
    fits = [folder for folder in tested if (folder / "checkpoints").is_dir()]
    assert len(fits) == 8
    assert len([folder for folder in fits if folder.name.startswith("seed_")]) == 5
    assert Path("runs/mine/test").is_dir()


@pytest.mark.slow
def test_the_commands_of_the_guide_to_deployment_run_in_their_order() -> None:
    told = runnable(DEPLOYMENT)
    run_all(told)
    assert list(Path("runs/cartpole/play").glob("*.gif"))
    is_exported = any("lit-mtdqn export" in command for command in told)
    exported = {path.name for path in Path("runs/cartpole").glob("export/*")}
    assert exported == ({"last.pt2", "last.onnx"} if is_exported else set())
