"""The command line, end to end, in this process."""

import csv
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_mtdqn import DQN
from lit_mtdqn.callbacks import TargetNetworkSync
from lit_mtdqn.cli import main

CARTPOLE = ["--config", "configs/dqn/cartpole.yaml", "--config", "configs/overlays/smoke.yaml"]
QUIET = ["--trainer.enable_progress_bar=false"]


def fit(folder: Path, *arguments: str) -> None:
    main(["fit", *CARTPOLE, *QUIET, f"--run_dir={folder}", *arguments])


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cartpole"
    fit(folder)
    return folder


def test_a_run_folder_describes_itself(finished_run: Path) -> None:
    names = {path.relative_to(finished_run).as_posix() for path in finished_run.rglob("*")}
    expected = {
        "config.yaml",
        "metrics.csv",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "report/learning_curves.png",
        "report/test_scores.csv",
    }
    assert expected <= names


def test_metrics_hold_the_clock_and_every_task(finished_run: Path) -> None:
    with (finished_run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    filled = {name for row in rows for name, value in row.items() if value}
    expected = {
        "step",
        "env_steps",
        "updates",
        "rollout/episode_return/cartpole",
        "rollout/epsilon/cartpole",
        "train/td_loss/cartpole",
        "train/q_mean/cartpole",
        "train/action_gap/cartpole",
        "train/grad_norm",
        "val/episode_return/cartpole",
        "val/q_bias/cartpole",
        "val/score/cartpole",
        "val/score/mean",
        "val/score/worst",
    }
    assert expected <= filled
    assert all(row["step"] == str(int(float(row["env_steps"]))) for row in rows)


def test_ten_evaluations_are_made_by_default(finished_run: Path) -> None:
    with (finished_run / "metrics.csv").open(newline="") as file:
        scores = [row for row in csv.DictReader(file) if row["val/score/mean"]]
    assert len(scores) >= 10


def test_the_saved_configuration_holds_no_option_of_the_one_command(finished_run: Path) -> None:
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert {"data", "model", "trainer", "seed_everything", "threads"} <= config.keys()
    assert not {"run_dir", "overwrite", "ckpt_path", "seeds", "jobs"} & config.keys()


def test_the_saved_configuration_alone_repeats_the_run_beside_it(finished_run: Path) -> None:
    known = set(finished_run.parent.iterdir())
    main(["fit", "--config", str(finished_run / "config.yaml"), *QUIET])
    (repeated,) = set(finished_run.parent.iterdir()) - known
    first = torch.load(finished_run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    again = torch.load(repeated / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_checkpoint_of_the_command_line_needs_nothing_else(finished_run: Path) -> None:
    model = DQN.load_from_checkpoint(finished_run / "checkpoints" / "last.ckpt")
    values = model.action_values(torch.zeros(1, 5, 4), torch.tensor([0]))
    assert values.shape == (1, 5, 2)


@pytest.mark.parametrize(
    ("subcommand", "checkpoint"), [("validate", "last"), ("test", "best"), ("test", "a file")]
)
def test_a_checkpoint_can_be_judged(
    subcommand: str, checkpoint: str, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = finished_run / subcommand / "metrics.csv"
    metrics.unlink(missing_ok=True)
    file = finished_run / "checkpoints" / "last.ckpt" if checkpoint == "a file" else checkpoint
    config = str(finished_run / "config.yaml")
    main([subcommand, "--config", config, f"--ckpt_path={file}", *QUIET])
    assert "score/mean" in capsys.readouterr().out
    assert metrics.exists()


def test_a_run_can_be_continued_in_its_folder_with_a_larger_budget(finished_run: Path) -> None:
    config = str(finished_run / "config.yaml")
    main(["fit", "--config", config, *QUIET, "--ckpt_path=last", "--data.total_env_steps=3000"])
    checkpoint = torch.load(finished_run / "checkpoints/last.ckpt", weights_only=True)
    (clock,) = [state["clock"] for state in checkpoint.values() if _has_clock(state)]
    assert clock["env_steps"]["cartpole"] >= 3000
    with (finished_run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps[0] < 1000 < 3000 <= steps[-1]


def _has_clock(state: object) -> bool:
    return isinstance(state, dict) and "clock" in state


def test_a_resumed_model_must_be_the_checkpoints(finished_run: Path) -> None:
    config = str(finished_run / "config.yaml")
    arguments = ["--ckpt_path=last", "--model.optimizer.lr=0.5"]
    with pytest.raises(SystemExit, match=r"`model.optimizer.init_args.lr` = 0.5 instead of"):
        main(["fit", "--config", config, *QUIET, *arguments])


def test_a_folder_that_holds_a_run_is_not_overwritten(finished_run: Path) -> None:
    with pytest.raises(SystemExit, match="`run_dir` must not hold a run already"):
        fit(finished_run)


def test_a_mistake_in_the_command_that_replaces_a_run_loses_nothing(finished_run: Path) -> None:
    before = sorted(finished_run.rglob("*"))
    with pytest.raises(SystemExit, match="`num_envs` must be at least 1"):
        fit(finished_run, "--overwrite=true", "--data.num_envs=0")
    assert sorted(finished_run.rglob("*")) == before


def test_a_run_that_is_replaced_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    fit(tmp_path / "run")
    old = (tmp_path / "run/metrics.csv").read_text()
    (tmp_path / "run/test").mkdir()
    fit(tmp_path / "run", "--overwrite=true")
    assert (tmp_path / "run/metrics.csv").read_text().count("\n") == old.count("\n")
    assert not (tmp_path / "run/test").exists()


def test_a_run_that_was_moved_goes_on_with_its_best_network(tmp_path: Path) -> None:
    fit(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    best = tmp_path / "new/checkpoints/best.ckpt"
    monitored = torch.load(best, weights_only=True)["callbacks"]
    (score,) = [s["best_model_score"] for s in monitored.values() if s.get("monitor")]
    # What nothing beats stays.
    last = tmp_path / "new/checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    for state in checkpoint["callbacks"].values():
        if state.get("monitor"):
            state["best_model_score"] = state["kth_value"] = score + 1000.0
            state["best_k_models"] = dict.fromkeys(state["best_k_models"], score + 1000.0)
    torch.save(checkpoint, last)
    before = best.read_bytes()
    config = str(tmp_path / "new/config.yaml")
    main(["fit", "--config", config, *QUIET, "--ckpt_path=last", "--data.total_env_steps=2500"])
    assert best.read_bytes() == before


def test_default_callbacks_can_be_replaced_from_the_command_line(tmp_path: Path) -> None:
    arguments = ["--trainer.callbacks+=TargetNetworkSync", "--trainer.callbacks.polyak_tau=0.5"]
    overlay = tmp_path / "callbacks.yaml"
    overlay.write_text("trainer: {callbacks: []}")
    fit(tmp_path / "run", "--config", str(overlay), *arguments)
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    (sync,) = config["trainer"]["callbacks"]
    assert sync["init_args"]["polyak_tau"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data.tasks.cartpole.env=Nope-v1"], "`tasks.cartpole.env` must be a registered id"),
        (["--data.tasks.cartpole.env=Pendulum-v1"], "DiscretizeAction"),
        (["--data.num_envs=0"], "`num_envs` must be at least 1. Got 0."),
        (["--data.replay_capacity=50"], "`replay_capacity` must be at least"),
        (["--data.replay_ratio=0"], "`replay_ratio` must be above 0. Got 0.0."),
        (["--data.batch_size=0"], "`batch_size` must be at least 1. Got 0."),
        (["--data.total_env_steps=50"], "`total_env_steps` must exceed the warm-up of 100"),
        (["--data.num_workers=2"], "`num_workers` must be 0"),
        (["--threads=0"], "`threads` must be at least 1 or null. Got 0."),
        (["--model.optimizer.lr=-1"], "`lr` must be at least 0. Got -1.0."),
        (["--trainer.precision=64-true"], "`trainer.precision` must be one of 32-true"),
        (["--trainer.gradient_clip_val=1"], "Automatic gradient clipping is not supported"),
        (["--model.network.torso=MinAtarTorso"], "`torso` must take vector observations"),
        (["--data.tasks.cartpole.gamma=2"], "`gamma` must lie in [0, 1]. Got 2.0."),
        (
            ["--trainer.callbacks+=EpsilonDecay", "--trainer.callbacks.end=-0.1"],
            "`EpsilonDecay.end` must lie in [0, 1]. Got -0.1.",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as error:
        fit(tmp_path / "run", *arguments)
    assert sentence in str(error.value)
    assert error.value.code == 2
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model.network.torso=NoSuch"], "`model.network.torso` must fit its type"),
        (
            ["--model.network.torso=lit_mtdqn.networks.NoSuch"],
            "module 'lit_mtdqn.networks' has no attribute 'NoSuch'",
        ),
        (["--model.network.torso.class_path=no_such.Torso"], "No module named 'no_such'"),
        (["--config=no_such.yaml"], "`config` must fit its type. File does not exist"),
        (["--data.num_env=3"], "unrecognized arguments: --data.num_env=3"),
        (["--data.tasks.cartpole.gama=0.5"], "Option 'gama' is not accepted"),
        (["--model.objective.bootstrap=soft"], "`model.objective.bootstrap` must fit its type"),
    ],
)
def test_what_the_parser_refuses_ends_in_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", *arguments)
    assert sentence in capsys.readouterr().err.splitlines()[0]


def _raise_in_training(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(TargetNetworkSync, "on_update_end", fail)


def test_a_complaint_while_the_run_is_under_way_ends_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raise_in_training(monkeypatch, "`x` must be 1. Got 2.")
    with pytest.raises(SystemExit, match=r"^error: `x` must be 1\. Got 2\.$") as error:
        fit(tmp_path / "run")
    assert error.value.__suppress_context__


def test_what_is_no_complaint_of_ours_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raise_in_training(monkeypatch, "out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tmp_path / "run")


def test_a_complaint_in_setup_ends_in_one_sentence(tmp_path: Path) -> None:
    huge = ["--data.replay_capacity=100000000000000"]
    with pytest.raises(SystemExit, match=r"^error: `data.replay_capacity` must fit into"):
        fit(tmp_path / "run", *huge)


def test_a_users_own_checkpoints_stand_beside_those_of_the_run(tmp_path: Path) -> None:
    overlay = tmp_path / "checkpoints.yaml"
    overlay.write_text(
        "trainer:\n  callbacks+:\n  - class_path: ModelCheckpoint\n"
        "    init_args: {filename: 'mine-{step}', save_top_k: 1}\n"
    )
    run = tmp_path / "run"
    fit(run, "--config", str(overlay))
    names = {path.name.partition("-")[0] for path in (run / "checkpoints").iterdir()}
    assert names == {"last.ckpt", "best.ckpt", "mine", "previous"}
    main(["test", "--config", str(run / "config.yaml"), "--ckpt_path=best", *QUIET])
    assert (run / "test" / "metrics.csv").exists()


def test_where_no_task_is_evaluated_a_run_leaves_its_last_network(tmp_path: Path) -> None:
    fit(tmp_path / "run", "--data.tasks.cartpole.evaluates=false")
    names = {path.name for path in (tmp_path / "run" / "checkpoints").rglob("*.ckpt")}
    assert names == {"last.ckpt"}


def test_checkpoints_can_be_switched_off(tmp_path: Path) -> None:
    fit(tmp_path / "run", "--trainer.enable_checkpointing=false")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "scale"),
    [
        ([], None),
        (["--model=MultiTaskDQN"], "lit_mtdqn.scaling.PopArt"),
        (["--model=DQN", "--model=MultiTaskDQN", "--model.scale=null"], None),
        (["--config=configs/methods/pcgrad.yaml"], "lit_mtdqn.scaling.PopArt"),
    ],
)
def test_a_class_that_replaces_another_has_its_own_defaults(
    arguments: list[str], scale: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config=configs/driving/three_tasks.yaml", *arguments, "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["scale"]
    assert (found and found["class_path"]) == scale


def test_without_a_model_a_dqn_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--data.tasks={a: {env: CartPole-v1}}", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"] == "lit_mtdqn.DQN"


def test_two_tasks_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = tmp_path / "twice.yaml"
    twice.write_text("data:\n  tasks:\n    a: {env: CartPole-v1}\n    a: {env: Acrobot-v1}\n")
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", "--config", str(twice))
    assert "must name each key once. Got 'a'" in capsys.readouterr().err


def _documented(text: str, prefix: str) -> dict[str, str]:
    """Return the help text of every option, without its type and default."""
    options: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("-"):
            name = stripped.split()[0].rstrip(",")
            rest = stripped.split("  ", 1)
            options[name] = rest[1].strip() if len(rest) > 1 else ""
        elif name:
            options[name] = f"{options[name]} {stripped}".strip()
    return {name: text for name, text in options.items() if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("arguments", "prefix", "count"),
    [(["--help"], "--data.", 18), (["--model.help", "lit_mtdqn.DQN"], "--model.", 4)],
)
def test_every_option_of_ours_has_a_help_text(
    arguments: list[str], prefix: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *arguments])
    options = _documented(capsys.readouterr().out, prefix)
    ours = {name: text for name, text in options.items() if not name.endswith(".help")}
    assert len(ours) >= count
    bare = [name for name, text in ours.items() if text.startswith("(type") or not text]
    assert bare == []


def test_a_run_that_is_told_to_end_does_not_exit_as_one_that_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise SIGTERMException

    monkeypatch.setattr(import_module("lit_mtdqn.cli.main"), "RunCLI", stop)
    with pytest.raises(SystemExit) as raised:
        main(["fit"])
    assert raised.value.code == 143
