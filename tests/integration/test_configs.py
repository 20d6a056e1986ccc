"""Every configuration that is shipped runs."""

from pathlib import Path

import pytest
import yaml
from helpers.runs import fit, small_data

from lit_mtdqn import DQN, TaskSpec
from lit_mtdqn.algorithms.factories import from_plain
from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli import main

OVERLAYS = ("overlays", "methods", "sweeps", "sequences")
RUNS = sorted(path for path in Path("configs").rglob("*.yaml") if path.parts[1] not in OVERLAYS)
METHODS = sorted(Path("configs/methods").glob("*.yaml"))


def _sharing_of(path: Path) -> str:
    """Return the class path of what a method shares between tasks, or nothing."""
    found = yaml.safe_load(path.read_text())
    for key in ("model", "init_args", "network", "init_args", "sharing", "class_path"):
        found = found.get(key, {})
    return str(found or "")


SHARINGS = [path for path in METHODS if _sharing_of(path)]


def smoke(folder: Path, *configs: Path) -> None:
    paths = [*configs, Path("configs/overlays/smoke.yaml")]
    arguments = [argument for path in paths for argument in ("--config", str(path))]
    main(["fit", *arguments, "--trainer.enable_progress_bar=false", f"--run_dir={folder}"])


def test_there_are_configurations_to_test() -> None:
    assert {path.stem for path in RUNS} >= {
        "three_tasks",
        "cartpole",
        "acrobot",
        "mountaincar",
        "lunarlander",
        "minatar_breakout",
    }


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_a_configuration_runs_to_its_report(path: Path, tmp_path: Path) -> None:
    smoke(tmp_path / "run", path)
    names = {file.name for file in (tmp_path / "run").rglob("*")}
    assert {"last.ckpt", "best.ckpt", "metrics.csv", "test_scores.csv"} <= names


@pytest.mark.parametrize("run", ["dqn/cartpole", "driving/three_tasks"])
@pytest.mark.parametrize("path", sorted({*METHODS} - {*SHARINGS}), ids=str)
def test_a_method_runs_on_one_task_and_on_many(path: Path, run: str, tmp_path: Path) -> None:
    smoke(tmp_path / "run", Path(f"configs/{run}.yaml"), path)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_there_are_ways_of_sharing_to_test() -> None:
    assert len(SHARINGS) >= 14


@pytest.mark.parametrize("path", SHARINGS, ids=str)
def test_a_way_of_sharing_runs_on_several_tasks(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its films take as long as the run.
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    smoke(tmp_path / "run", Path("configs/driving/three_tasks.yaml"), path)
    learner = DQN.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert type(learner.network.sharing).__name__ == _sharing_of(path).rpartition(".")[2]


@pytest.mark.parametrize("path", SHARINGS, ids=str)
def test_a_way_of_sharing_runs_on_tasks_of_unlike_sizes(path: Path) -> None:
    network = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]
    envs = {"mountaincar": "MountainCar-v0", "cartpole": "CartPole-v1"}
    data = small_data({name: TaskSpec(env=env) for name, env in envs.items()})
    model = DQN(data.task_infos, from_plain(network, "network"))
    fit(data, model)
    assert data.clock.updates > 0
    assert all(parameter.isfinite().all() for parameter in model.network.parameters())


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_a_configuration_says_what_it_is_and_what_it_reached(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert len(header) >= 3
    assert lines[: len(header)] == header
    assert any("benchmarks/results/" in line for line in header)


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_a_configuration_holds_nothing_but_runs(path: Path) -> None:
    assert set(yaml.safe_load(path.read_text())) <= {"model", "data", "trainer", "seed_everything"}
