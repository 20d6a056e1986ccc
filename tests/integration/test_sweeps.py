"""Sweeps that are shipped: their files, what they propose, and one that runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.sweep import command_of, complaints, load_sweep, proposals, run_sweep
from helpers.wandb_file import read_wandb_file

from lit_mtdqn.analysis.checkpoints import whole_checkpoint
from lit_mtdqn.cli import main

SWEEPS = sorted(Path("configs/sweeps").glob("*.yaml"))
METRICS = {"dqn_seeds": "val/score/iqm"}


def test_there_are_sweeps_to_test() -> None:
    names = {path.stem for path in SWEEPS}
    assert names >= {"dqn", "dqn_seeds", "balancing", "distillation", "transfer"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_is_one_to_weights_and_biases(path: Path) -> None:
    sweep = load_sweep(path)
    assert complaints(sweep) == []
    metric = METRICS.get(path.stem, "val/score/mean")
    assert sweep["metric"] == {"name": metric, "goal": "maximize"}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_what_a_sweep_proposes_is_taken_in_any_order_of_flags(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = load_sweep(path)
    first, _, third = proposals(sweep, scores=[0.1, 0.7, 0.3])
    parsed = [_parsed(command_of(sweep, proposed), capsys) for proposed in (first, third)]
    assert _parsed(command_of(sweep, dict(reversed(first.items()))), capsys) == parsed[0]
    for proposed, configuration in zip((first, third), parsed, strict=True):
        assert proposed.keys() == sweep["parameters"].keys()
        for flag, entry in proposed.items():
            if flag != "config":
                assert _value(configuration, flag.split(".")) == entry["value"], flag
        if "config" in proposed:
            chosen = yaml.safe_load(Path(proposed["config"]["value"]).read_text())
            names = ["model", "init_args", "balancer"]
            assert _class_path(configuration, names) == _class_path(chosen, names)
        assert configuration["trainer"]["logger"]["class_path"] == "lit_mtdqn.loggers.WandbRun"


def _parsed(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--seeds=null", "--print_config"])
    printed = capsys.readouterr()
    assert stop.value.code in (None, 0), printed.err
    configuration: dict[str, Any] = yaml.safe_load(printed.out)
    return configuration


def _value(configuration: Any, names: list[str]) -> Any:
    """Return what a flag has set, of the last of a list."""
    for name in names:
        if isinstance(configuration, list):
            having = [entry for entry in configuration if name in entry.get("init_args", {})]
            configuration = having[-1]
        if name not in configuration:
            configuration = configuration["init_args"]
        configuration = configuration[name]
    return configuration


def _class_path(configuration: Any, names: list[str]) -> Any:
    entry = _value(configuration, names)
    return None if entry is None else entry["class_path"]


# What a run scores says nothing of these ranges but they of it: the third proposal is the best and
# the fourth the worst, whatever is learned.
RANGES = [[-100, 0], [-10, 0], [-1, 0], [0, 1000]]
EXECUTED_PARAMETERS = {"data.tasks.cartpole.score_range": {"values": RANGES}}
EXECUTED = {
    "method": "grid",
    "metric": {"name": "val/score/mean", "goal": "maximize"},
    "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
    "parameters": EXECUTED_PARAMETERS,
    "command": [
        *("${env}", "${interpreter}", "-m", "lit_mtdqn", "fit"),
        "--config=configs/dqn/cartpole.yaml",
        "--config=configs/overlays/smoke.yaml",
        # Steps without updates to speak of take no time.
        *("--data.total_env_steps=16000", "--data.replay_ratio=0.0078125"),
        *("--data.batch_size=8", "--model.network.torso.hidden=[8]"),
        "--trainer.enable_progress_bar=false",
        "${args}",
        "--config=configs/overlays/wandb.yaml",
        "--trainer.callbacks.per_run=1",
    ],
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_runs_to_its_end_and_its_worst_run_is_stopped(tmp_path: Path) -> None:
    runs = list(run_sweep(EXECUTED, len(RANGES), tmp_path, {"WANDB_MODE": "offline"}))
    assert [list(run.arguments.values()) for run in runs] == [[one] for one in RANGES]
    assert [run.is_stopped for run in runs] == [False, False, False, True]
    # W&B's agent takes anything above for a failure.
    assert [run.exit_code for run in runs] == [0, 0, 0, 0]
    logged = [read_wandb_file(run.folder) for run in runs]
    assert [one.run_id for one in logged] == ["run0", "run1", "run2", "run3"]
    assert [one.exit_code for one in logged] == [0, 0, 0, 0]
    (parameter,) = EXECUTED_PARAMETERS
    assert [one.config[parameter] for one in logged] == RANGES
    for one in logged:
        assert one.config["data"]["tasks"]["cartpole"]["score_range"] == one.config[parameter]
    lengths = [len(one.curve("val/score/mean")) for one in logged]
    assert lengths[0] == lengths[1] == lengths[2] > lengths[3] >= 2
    whole_checkpoint(runs[3].folder / "checkpoints" / "last.ckpt", "ckpt_path")
    assert not (runs[3].folder / "report" / "test_scores.csv").exists()
