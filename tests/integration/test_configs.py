"""Every configuration that is shipped runs."""

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.asserts import assert_same_state
from helpers.resuming import check_goes_on
from helpers.runs import fit, small_data
from methods_table import BY_TASK

from lit_mtdqn import DQN, MultiTaskDQN, TaskSpec
from lit_mtdqn.algorithms.factories import from_plain
from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli import main
from lit_mtdqn.networks import SuccessorHead

OVERLAYS = ("overlays", "methods", "sweeps", "sequences")
RUNS = sorted(path for path in Path("configs").rglob("*.yaml") if path.parts[1] not in OVERLAYS)
# What needs an earlier run, or tasks of a kind, has a test of its own.
PARTICULAR = ("runs/source", "PartLearningRates", "SuccessorHead")
METHODS = sorted(
    path
    for path in Path("configs/methods").glob("*.yaml")
    if not any(name in path.read_text() for name in PARTICULAR)
)
# Those of one extra run where it is installed, which `make test-slow` sees to.
HAS_ENVPOOL = find_spec("envpool") is not None
ENVPOOL = (
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_ENVPOOL, reason="needs pip install lit-mtdqn[envpool]"),
)


def tasks_of(path: Path) -> dict[str, dict[str, Any]]:
    tasks: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["data"]["tasks"]
    return tasks


def needs_envpool(path: Path) -> bool:
    return any(task.get("backend") == "envpool" for task in tasks_of(path).values())


# Those of students are run with teachers in `test_distillation.py`.
RUNNABLE = [
    pytest.param(path, marks=ENVPOOL if needs_envpool(path) else ())
    for path in RUNS
    if path.parts[1] != "distillation"
]


def _sharing_of(path: Path) -> str:
    """Return the class path of what a method shares between tasks, or nothing."""
    found = yaml.safe_load(path.read_text())
    for key in ("model", "init_args", "network", "init_args", "sharing", "class_path"):
        found = found.get(key, {})
    return str(found or "")


SHARINGS = [path for path in METHODS if _sharing_of(path)]
# cvxpy warns of much that torchjd asks of it for Nash-MTL.
SILENT = {"nash_mtl": [pytest.mark.filterwarnings("ignore")]}
ALIGNMENTS = [path for path in METHODS if "lit_mtdqn.objectives.Align" in path.read_text()]
# They need teachers, and are run with some in `test_distillation.py`.
TAUGHT = [path for path in METHODS if "lit_mtdqn.PolicyDistillation" in path.read_text()]
MULTI_TASK = [
    path
    for path in METHODS
    if "lit_mtdqn.MultiTaskDQN" in path.read_text() and path not in ALIGNMENTS
]
NEEDS_SOLVERS = {"cagrad": "cvxpy", "nash_mtl": "ecos", "upgrad": "quadprog"}
CARTPOLE = "configs/dqn/cartpole.yaml"
BRIEF = ["--data.total_env_steps=500", "--data.eval_max_steps=5", "--data.test_episodes=1"]
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
    check_goes_on(folder)


def test_there_are_configurations_to_test() -> None:
    assert {path.stem for path in RUNS} >= {
        "three_tasks",
        "cartpole",
        "acrobot",
        "mountaincar",
        "lunarlander",
        "minatar_breakout",
        "classic_control",
        "contextual_cartpole",
        "noisy_driving",
        "minatar",
        "highway",
        "minigrid",
        "shifted_driving",
        "breakout_views",
        "gathering",
    }


@pytest.mark.parametrize("path", RUNNABLE, ids=str)
def test_a_configuration_runs_to_its_report(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.parts[1] != "dqn":
        # Films take as long as the run.
        monkeypatch.setattr("lit_mtdqn.callbacks.run_report._film", lambda *_: None)
    smoke(tmp_path / "run", path)
    names = {file.name for file in (tmp_path / "run").rglob("*")}
    assert {"last.ckpt", "best.ckpt", "metrics.csv", "test_scores.csv"} <= names
    with next((tmp_path / "run").rglob("test_scores.csv")).open() as file:
        assert [row["task"] for row in csv.DictReader(file)] == list(tasks_of(path))


@pytest.mark.parametrize("run", ["dqn/cartpole", "driving/three_tasks"])
@pytest.mark.parametrize(
    "path",
    sorted({*METHODS} - {*SHARINGS} - {*MULTI_TASK} - {*TAUGHT} - {*ALIGNMENTS}),
    ids=str,
)
def test_a_method_runs_on_one_task_and_on_many(
    path: Path, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    smoke(tmp_path / "run", Path(f"configs/{run}.yaml"), path, options=BRIEF)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_there_are_ways_of_sharing_to_test() -> None:
    assert len(SHARINGS) >= 14


@pytest.mark.parametrize("path", SHARINGS, ids=str)
def test_a_way_of_sharing_runs_on_several_tasks(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its films take as long as the run.
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    smoke(tmp_path / "run", Path("configs/driving/three_tasks.yaml"), path, options=BRIEF)
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


SUITES = {"driving": "configs/driving/three_tasks.yaml", "classic_control": CARTPOLE}
TASKS = {
    "driving": ["lane_keeping", "pedestrian", "traffic_light"],
    "classic_control": ["cartpole", "acrobot"],
}


def _suite(name: str, folder: Path) -> list[Path]:
    """Return the configurations that make a suite of several tasks."""
    configs = [Path(SUITES[name])]
    if name == "classic_control":
        configs.append(folder / "tasks.yaml")
        configs[-1].write_text(CLASSIC_CONTROL)
    return configs


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=SILENT.get(p.stem, [])) for p in MULTI_TASK]
)
def test_a_multi_task_method_runs_and_loads_on_two_suites(
    path: Path, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.stem in NEEDS_SOLVERS:
        pytest.importorskip(NEEDS_SOLVERS[path.stem], reason="needs the extra `solvers`")
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    smoke(tmp_path / "run", *_suite(suite, tmp_path), path, options=BRIEF)
    model = MultiTaskDQN.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert [info.name for info in model.tasks] == TASKS[suite]
    assert model.balancer is not None or len(model.objectives) > 0


def test_there_are_alignments_to_test() -> None:
    assert {path.stem for path in ALIGNMENTS} >= {"mmd", "coral", "dann", "dam"}


UNREWARDED = {"shifted_driving": "shifted", "contextual_cartpole": "longer_pole"}


@pytest.mark.parametrize("suite", UNREWARDED)
@pytest.mark.parametrize("path", ALIGNMENTS, ids=lambda path: path.stem)
def test_an_alignment_runs_and_loads_on_two_suites(
    path: Path, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    target = UNREWARDED[suite]
    options = [*BRIEF, "--data.total_env_steps=700", "--trainer.log_every_n_steps=1"]
    options += [f"--data.tasks.{target}.head=null"] if path.stem == "dam" else []
    smoke(tmp_path / "run", Path(f"configs/adaptation/{suite}.yaml"), path, options=options)
    metrics = read_metrics(tmp_path / "run" / "metrics.csv")
    assert f"train/{path.stem}/{target}" in metrics
    MultiTaskDQN.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("argument", BY_TASK)
def test_what_is_said_of_single_tasks_runs_on_two_suites(
    argument: str, suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    task, *others = TASKS[suite]
    ones = ", ".join(f"{name}: 1" for name in others)
    option = argument.replace("<task>", task).replace("<others>: 1", ones)
    smoke(tmp_path / "run", *_suite(suite, tmp_path), options=[*BRIEF, f"--{option}"])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_successor_features_play_tasks_that_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    names = "multitask/gathering", "methods/successor_features"
    smoke(tmp_path / "run", *(Path(f"configs/{name}.yaml") for name in names), options=BRIEF)
    metrics = read_metrics(tmp_path / "run" / "metrics.csv")
    assert {"train/reward_regression", "val/score/avoids_b"} <= metrics.keys()
    model = MultiTaskDQN.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert isinstance(model.network.head, SuccessorHead)
    assert model.network.head.weights.is_given.tolist() == [False, False, True, True, True]


DIAGNOSTICS = Path("configs/overlays/diagnostics.yaml")
# What its header says of runs of plain DQN.
AS_MULTI_TASK = ["--model=lit_mtdqn.MultiTaskDQN", "--model.scale=null"]


@pytest.mark.parametrize(
    ("run", "options"),
    [("driving/three_tasks", AS_MULTI_TASK), ("multitask/classic_control", [])],
)
def test_diagnostics_are_added_to_what_a_run_has(
    run: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_mtdqn.callbacks.run_report._film", lambda *_: None)
    path, every = Path(f"configs/{run}.yaml"), "--trainer.log_every_n_steps=1"
    smoke(tmp_path / "run", path, DIAGNOSTICS, options=[*BRIEF, every, *options])
    metrics = read_metrics(tmp_path / "run" / "metrics.csv")
    one, other, *_ = tasks_of(path)
    expected = {f"affinity/{one}/{one}", f"gradients/cosine/{one}/{other}"}
    expected |= {"health/dormant/1", f"health/effective_rank/{one}", f"health/policy_churn/{other}"}
    assert metrics.keys() >= expected
    report = {path.name for path in (tmp_path / "run" / "report").iterdir()}
    assert report >= {"gradient_agreement.png", "task_affinity.png", "relatedness.csv"}
    callbacks = _callbacks(tmp_path / "run" / "config.yaml")
    assert callbacks == [*_callbacks(path), "GradientAgreement", "TaskAffinity", "NetworkHealth"]
    assert callbacks[:2] == ["TargetNetworkSync", "EpsilonDecay"]


@pytest.mark.parametrize(
    ("run", "method"),
    [("dqn/cartpole", "dueling"), ("multitask/noisy_driving", "moore")],
)
def test_a_process_of_its_own_plays_networks_of_every_make(
    run: str, method: str, tmp_path: Path
) -> None:
    paths = [Path(f"configs/{name}.yaml") for name in (run, f"methods/{method}")]
    smoke(tmp_path / "run", *paths, options=[*BRIEF, "--data.background=true"])
    assert read_metrics(tmp_path / "run" / "metrics.csv")


@pytest.mark.parametrize("run", ["driving/three_tasks", "multitask/contextual_cartpole"])
def test_a_run_stays_on_its_device(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    paths = [Path(f"configs/{name}.yaml") for name in (run, "overlays/device_resident")]
    # The last overlay of `smoke` takes the CPU for the device.
    smoke(tmp_path / "run", *paths, options=[*BRIEF, "--trainer.log_every_n_steps=1"])
    metrics = read_metrics(tmp_path / "run" / "metrics.csv")
    task = next(iter(tasks_of(paths[0])))
    assert {f"train/td_loss/{task}", f"val/episode_return/{task}"} <= metrics.keys()
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["device_resident"]
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def _callbacks(path: Path) -> list[str]:
    entries = yaml.safe_load(path.read_text())["trainer"]["callbacks"]
    return [entry["class_path"].rpartition(".")[2] for entry in entries]


def test_diagnostics_leave_training_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    run, every = Path("configs/driving/three_tasks.yaml"), "--trainer.log_every_n_steps=1"
    smoke(tmp_path / "plain", run, options=BRIEF)
    smoke(tmp_path / "watched", run, DIAGNOSTICS, options=[*BRIEF, every, *AS_MULTI_TASK])
    plain, watched = (
        kind.load_from_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")
        for kind, name in ((DQN, "plain"), (MultiTaskDQN, "watched"))
    )
    assert_same_state(watched, plain)


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_a_configuration_says_what_it_is_and_what_it_reached(path: Path) -> None:
    lines = path.read_text().splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert len(header) >= 3
    assert lines[: len(header)] == header
    assert any("benchmarks/results/" in line for line in header)


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_tasks_of_several_have_scores_that_compare_and_extras_that_are_named(path: Path) -> None:
    tasks = tasks_of(path).values()
    if len(tasks) > 1:
        assert all("score_range" in task or "success_key" in task for task in tasks)
    extras = {"LunarLander-v3": "box2d", "MinAtar/": "minatar"}
    needed = {name for task in tasks for env, name in extras.items() if task["env"].startswith(env)}
    needed |= {"envpool"} if needs_envpool(path) else set()
    if path.parts[1] == "multitask":
        assert all(f"the extra `{name}`" in path.read_text() for name in needed)


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_a_configuration_can_be_shared_by_eight_ranks(path: Path) -> None:
    data = yaml.safe_load(path.read_text())["data"]
    shared = [data.get(name, 8) for name in ("num_envs", "batch_size", "replay_capacity")]
    assert [number % 8 for number in shared] == [0, 0, 0]


@pytest.mark.parametrize("path", RUNS, ids=str)
def test_a_configuration_holds_nothing_but_runs(path: Path) -> None:
    assert set(yaml.safe_load(path.read_text())) <= {"model", "data", "trainer", "seed_everything"}
