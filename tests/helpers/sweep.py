"""Sweeps without a server: W&B's own proposals and early termination, and a small local agent."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from lit_mtdqn.analysis.metrics_file import read_metrics

with warnings.catch_warnings():
    # Its classes are of pydantic 1.
    warnings.simplefilter("ignore")
    import sweeps

POLL_SECONDS = 0.1
# What W&B's agent gives a run between SIGTERM and SIGKILL (`wandb.wandb_agent.Agent.KILL_DELAY`).
KILL_DELAY = 30.0


class EndedRun(NamedTuple):
    """A run of a sweep that has ended.

    Attributes:
        arguments: What the sweep proposed, by flag.
        folder: Its folder.
        is_stopped: Whether early termination has stopped it.
        exit_code: What it exited with.
        seconds_to_end: Seconds between being told and having ended; None if it was not told.
    """

    arguments: dict[str, Any]
    folder: Path
    is_stopped: bool
    exit_code: int
    seconds_to_end: float | None


def load_sweep(path: Path) -> dict[str, Any]:
    """Return a sweep of a file."""
    sweep: dict[str, Any] = yaml.safe_load(path.read_text())
    return sweep


def complaints(sweep: dict[str, Any]) -> list[str]:
    """Return what W&B has against a sweep."""
    found: list[str] = sweeps.schema_violations_from_proposed_config(sweep)
    return found


def proposals(sweep: dict[str, Any], scores: Sequence[float]) -> list[dict[str, Any]]:
    """Return what a sweep proposes, one after the other, where earlier runs reach given scores."""
    runs: list[Any] = []
    for score in scores:
        run = sweeps.next_run(sweep, runs, validate=True)
        assert run is not None
        run.state, run.summary_metrics = "finished", {sweep["metric"]["name"]: score}
        runs.append(run)
    return [run.config for run in runs]


def command_of(sweep: dict[str, Any], proposed: dict[str, Any]) -> list[str]:
    """Return the command of a proposal, by W&B's own formatting, without what launches it."""
    flags: list[str] = create_sweep_command_args({"args": proposed})["args"]
    launcher = ["${env}", "${interpreter}", "-m", "lit_mtdqn"]
    assert sweep["command"][:4] == launcher
    parts = (flags if part == "${args}" else [part] for part in sweep["command"][4:])
    return list(itertools.chain.from_iterable(parts))


def run_sweep(
    sweep: dict[str, Any], proposals: int, folder: Path, environment: dict[str, str]
) -> Iterator[EndedRun]:
    """Run a sweep's command for so many proposals, one at a time, and stop runs as W&B would.

    Args:
        sweep: The sweep.
        proposals: How many.
        folder: Holds a folder of each run.
        environment: What is added to the runs' environment.
    """
    name = sweep["metric"]["name"]
    runs: list[Any] = []
    for index in range(proposals):
        run = sweeps.next_run(sweep, runs, validate=True)
        assert run is not None, "the sweep proposes less than that"
        run.name, run.state = f"run{index}", "running"
        runs.append(run)
        run_dir, parameters = folder / run.name, folder / f"{run.name}.yaml"
        parameters.write_text(yaml.safe_dump({"wandb_version": 1, **run.config}))
        arguments = [*command_of(sweep, run.config), f"--run_dir={run_dir}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_mtdqn", *arguments],
            env={
                **os.environ,
                **environment,
                "WANDB_SWEEP_ID": "local",
                "WANDB_RUN_ID": run.name,
                "WANDB_SWEEP_PARAM_PATH": str(parameters),
            },
        )
        told: float | None = None
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                run.history = [{name: value} for value in scores_of(run_dir, name)]
                if told is None and run in sweeps.stop_runs(sweep, runs, validate=True):
                    told = time.monotonic()
                    process.terminate()
                assert told is None or time.monotonic() < told + KILL_DELAY, "it does not end"
        finally:
            process.kill()
            process.wait()
        ended = None if told is None else time.monotonic() - told
        run.history = [{name: value} for value in scores_of(run_dir, name)]
        run.state = "finished" if process.returncode == 0 else "failed"
        proposed = {flag: entry["value"] for flag, entry in run.config.items()}
        yield EndedRun(proposed, run_dir, told is not None, process.returncode, ended)


def scores_of(run_dir: Path, name: str) -> list[float]:
    """Return the values of a metric so far."""
    file = run_dir / "metrics.csv"
    curve = read_metrics(file).get(name) if file.is_file() else None
    return [] if curve is None else curve.values.tolist()
