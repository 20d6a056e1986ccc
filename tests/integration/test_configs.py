"""Every configuration that is shipped runs."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from lit_mtdqn import MultiTaskDQN
from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli import main

OVERLAYS = ("overlays", "methods", "sweeps", "sequences")
RUNS = sorted(path for path in Path("configs").rglob("*.yaml") if path.parts[1] not in OVERLAYS)
METHODS = sorted(Path("configs/methods").glob("*.yaml"))
# cvxpy warns of much that torchjd asks of it for Nash-MTL.
SILENT = {"nash_mtl": [pytest.mark.filterwarnings("ignore")]}
MULTI_TASK = [path for path in METHODS if "lit_mtdqn.MultiTaskDQN" in path.read_text()]
NEEDS_SOLVERS = {"cagrad": "cvxpy", "nash_mtl": "ecos", "upgrad": "quadprog"}
CARTPOLE = "configs/dqn/cartpole.yaml"
# Unlike observations and actions, which are padded.
CLASSIC_CONTROL = """
data:
  tasks:
    cartpole: {env: CartPole-v1, score_range: [20, 500]}
    acrobot: {env: Acrobot-v1, weight: 2.0}
"""


def smoke(folder: Path, *configs: Path, options: Sequence[str] = ()) -> None:
    paths = [*configs, Path("configs/overlays/smoke.yaml")]
    arguments = [argument for path in paths for argument in ("--config", str(path))]
    quiet = ["--trainer.enable_progress_bar=false", f"--run_dir={folder}"]
    main(["fit", *arguments, *quiet, *options])


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


@pytest.mark.parametrize("path", sorted(set(METHODS) - set(MULTI_TASK)), ids=str)
def test_a_method_runs_on_a_configuration(path: Path, tmp_path: Path) -> None:
    smoke(tmp_path / "run", Path(CARTPOLE), path)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("suite", ["driving", "classic_control"])
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=SILENT.get(p.stem, [])) for p in MULTI_TASK]
)
def test_a_multi_task_method_runs_and_loads_on_two_suites(
    path: Path, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem in NEEDS_SOLVERS:
        pytest.importorskip(NEEDS_SOLVERS[path.stem], reason="needs the extra `solvers`")
    runs = {"driving": "configs/driving/three_tasks.yaml", "classic_control": CARTPOLE}
    configs = [Path(runs[suite])]
    if suite == "classic_control":
        configs.append(tmp_path / "tasks.yaml")
        configs[-1].write_text(CLASSIC_CONTROL)
    brief = ["--data.total_env_steps=500", "--data.eval_max_steps=5", "--data.test_episodes=1"]
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    smoke(tmp_path / "run", *configs, path, options=brief)
    model = MultiTaskDQN.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    names = {"driving": ["lane_keeping", "pedestrian", "traffic_light"]}
    assert [info.name for info in model.tasks] == names.get(suite, ["cartpole", "acrobot"])
    assert model.balancer is not None or len(model.objectives) > 0


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
