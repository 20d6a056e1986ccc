"""Configurations of students, and overlays for them, run with small teachers."""

import itertools
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from helpers.resuming import check_goes_on

from lit_mtdqn import PolicyDistillation
from lit_mtdqn.analysis.metrics_file import read_metrics
from lit_mtdqn.callbacks import RunReport
from lit_mtdqn.cli import main
from lit_mtdqn.functional.distillation import MatchKind
from lit_mtdqn.objectives import AttentionTransfer, FeatureRegression

STUDENTS = {path.stem: path for path in sorted(Path("configs/distillation").glob("*.yaml"))}
METHODS = ("actor_mimic", "attention_transfer", "teacher_acts")
DISTANCES = get_args(MatchKind)
# Runs that have the tasks of the students.
SOURCES = {"cartpole_student": "dqn/cartpole", "driving_student": "driving/three_tasks"}
BRIEF = ["--data.total_env_steps=500", "--data.eval_max_steps=5", "--data.test_episodes=1"]


def _tasks(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["data"]["tasks"]
    return found


def _fit(folder: Path, *configs: Path, options: Any = ()) -> None:
    paths = [*configs, Path("configs/overlays/smoke.yaml")]
    arguments = [f"--config={path}" for path in paths]
    every = ["--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false"]
    main(["fit", *arguments, *every, f"--run_dir={folder}", *BRIEF, *options])


@pytest.fixture(scope="module")
def specialists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a run of each task by itself, of a few updates."""
    folder, found = tmp_path_factory.mktemp("teachers"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunReport, "on_fit_end", lambda *_: None)
        for source in SOURCES.values():
            path = Path(f"configs/{source}.yaml")
            for name, task in _tasks(path).items():
                found[name] = folder / name
                _fit(found[name], path, options=[f"--data.tasks={ {name: task} }"])
    return found


def test_all_configurations_of_students_are_run() -> None:
    assert set(STUDENTS) == set(SOURCES)


@pytest.mark.parametrize(
    ("student", "method"),
    [
        *itertools.product(SOURCES, [None, *METHODS]),
        *(("cartpole_student", distance) for distance in DISTANCES),
    ],
)
def test_a_student_runs_from_teachers_of_its_tasks_and_loads_without_them(
    student: str,
    method: str | None,
    specialists: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RunReport, "on_fit_end", lambda *_: None)
    path = STUDENTS[student]
    overlays = [] if method is None else [Path(f"configs/methods/{method}.yaml")]
    teachers = {name: str(specialists[name]) for name in _tasks(path)}
    options = [f"--model.teachers={teachers}"]
    if student == "cartpole_student" and method == "attention_transfer":
        options.append("--model.network.init_args.torso.init_args.hidden=[256, 256]")
    _fit(tmp_path / "run", path, *overlays, options=options)
    metrics = read_metrics(tmp_path / "run" / "metrics.csv")
    assert {f"train/agreement/{name}" for name in teachers} <= metrics.keys()
    check_goes_on(tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    model = PolicyDistillation.load_from_checkpoint(checkpoint)
    assert [info.name for info in model.tasks] == list(teachers)
    kinds = {"actor_mimic": FeatureRegression, "attention_transfer": AttentionTransfer}
    if method in DISTANCES:
        assert model.match.kind == method
    elif method == "teacher_acts":
        assert model.acting_network is None
    elif method is not None:
        (objective,) = model.objectives
        assert type(objective) is kinds[method]
