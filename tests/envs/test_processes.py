"""Environments in processes of their own: the same rows, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import pytest
import torch
from helpers.asserts import complaint
from helpers.counting_env import SINGLE, identity_of
from helpers.failing_env import EXIT_CODE, FAILING
from helpers.runs import fit, small_data, small_model

from lit_mtdqn.envs import TaskEnv, make_vector_env, probe_tasks
from lit_mtdqn.envs.processes import PATIENCE, ProcessVectorEnv
from lit_mtdqn.types import StepRow, TaskSpec

NUM_ENVS = 3
SEED = 2**24 + 10
# Gymnasium tells of a failed process by warnings, with its traceback.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*ERROR. (Received the following|\\n?Traceback|Raising)"
)

BUILT: list[TaskEnv] = []


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    processes = [process for env in BUILT for process in _processes(env)]
    while BUILT:
        BUILT.pop().close()
    assert not any(process.is_alive() for process in processes)


def _env(spec: TaskSpec) -> TaskEnv:
    env = TaskEnv("maze", spec, NUM_ENVS, probe_tasks({"maze": spec})[0])
    BUILT.append(env)
    return env


def _processes(env: TaskEnv) -> list[Any]:
    vector = env.env.unwrapped
    return vector.processes if isinstance(vector, ProcessVectorEnv) else []


def _failing(how: str, when: str, only_in: int | None = None) -> TaskSpec:
    kwargs = {"how": how, "when": when, "only_in": only_in, "parent": os.getpid()}
    return TaskSpec(env=FAILING, kwargs=kwargs, backend="async")


def _play(env: TaskEnv, seed: int, vector_steps: int, actions: int) -> list[StepRow]:
    env.reset(seed)
    drawn = np.random.default_rng(0).integers(actions, size=(vector_steps, NUM_ENVS))
    return [env.step(action) for action in drawn]


SPECS = [
    TaskSpec(env="CartPole-v1"),
    TaskSpec(env="Acrobot-v1", time_limit=40),
    TaskSpec(env="CartPole-v1", wrappers=["RecordEpisodeStatistics", "NormalizeObservation"]),
]


@pytest.mark.parametrize("spec", SPECS, ids=["cartpole", "limited", "wrapped"])
def test_rows_are_those_of_copies_stepped_one_by_one(spec: TaskSpec) -> None:
    sync, processes = _env(replace(spec, backend="sync")), _env(replace(spec, backend="async"))
    for seed in (SEED, SEED + 100):
        for expected, found in zip(
            _play(sync, seed, 120, 2), _play(processes, seed, 120, 2), strict=True
        ):
            assert expected._replace(extra={})._asdict().keys() == found._asdict().keys()
            for name in ("observation", "action", "reward", "terminated", "truncated", "valid"):
                wanted, got = getattr(expected, name), getattr(found, name)
                np.testing.assert_array_equal(got, wanted, err_msg=name)
                assert got.dtype == wanted.dtype
    assert any(row.terminated.any() | row.truncated.any() for row in _play(sync, SEED, 120, 2))


def test_a_whole_run_learns_the_same_and_leaves_no_process() -> None:
    weights = []
    before = set(psutil.Process().children(recursive=True))
    for backend in ("sync", "async"):
        torch.manual_seed(0)
        data = small_data({"count": TaskSpec(env=SINGLE, backend=backend)})
        model = small_model(data)
        fit(data, model)
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor), name
    del data, model
    gc.collect()
    left = set(psutil.Process().children(recursive=True)) - before
    # What stays until this process ends: the server that starts processes, and Python's tracker.
    assert {process.pid for process in left} <= _servers()


@pytest.mark.parametrize("when", ["reset", "step"])
@pytest.mark.parametrize("only_in", [None, identity_of(SEED + 1)], ids=["all", "one"])
def test_an_error_in_a_process_names_the_task_and_ends_all_processes(
    when: str, only_in: int | None
) -> None:
    env = _env(_failing("raise", when, only_in))
    with pytest.raises(RuntimeError, match=complaint("tasks.maze.env")) as caught:
        _play(env, SEED, 2, 2)
    assert "UnsendableError: wheel number 3 is broken" in str(caught.value)
    assert not any(process.is_alive() for process in _processes(env))


@pytest.mark.parametrize("when", ["make", "reset", "step"])
def test_a_process_that_dies_is_told_from_one_that_hangs(when: str) -> None:
    spec = _failing("exit", when, None if when == "make" else identity_of(SEED))
    with pytest.raises(RuntimeError, match=complaint("tasks.maze.env")) as caught:
        _play(_env(spec), SEED, 2, 2)
    assert f"exit codes [{EXIT_CODE}" in str(caught.value)
    assert not any(process.is_alive() for env in BUILT for process in _processes(env))


@pytest.mark.parametrize("when", ["make", "reset", "step"])
def test_a_process_that_hangs_ends_the_run_after_its_time(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_mtdqn.envs.processes.STARTING", 60.0 if when == "step" else 2.0)
    only_in = None if when == "make" else identity_of(SEED + 1)
    spec = replace(_failing("hang", when, only_in), step_timeout=1.0)
    with pytest.raises(RuntimeError, match=complaint("tasks.maze.env")) as caught:
        _play(_env(spec), SEED, 2, 2)
    limit = 1.0 if when == "step" else 2.0
    assert f"no answer within {limit} s (`step_timeout`)" in str(caught.value)
    assert not any(process.is_alive() for env in BUILT for process in _processes(env))


def test_after_a_failure_nothing_can_be_stepped_and_closing_is_harmless() -> None:
    env = _env(_failing("raise", "step", identity_of(SEED)))
    with pytest.raises(RuntimeError, match=r"^`tasks\.maze\.env`"):
        _play(env, SEED, 1, 2)
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.step(np.zeros(NUM_ENVS, np.int64))
    env.close()
    env.close()


def test_an_environment_that_cannot_be_built_says_so_before_there_are_processes() -> None:
    spec = TaskSpec(env="helpers.showing_env:needs", kwargs={"package": "x"}, backend="async")
    with pytest.raises(ValueError, match=r"^`tasks\.maze\.env` must have its packages installed"):
        make_vector_env("maze", spec, 2)


def test_closing_does_not_wait_for_ever() -> None:
    env = _env(_failing("hang", "close"))
    env.reset(SEED)
    processes = _processes(env)
    started = time.monotonic()
    env.env.close(timeout=0.5)
    assert time.monotonic() - started < PATIENCE
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * NUM_ENVS


def test_processes_leave_ctrl_c_to_the_one_that_trains() -> None:
    handler = signal.getsignal(signal.SIGINT)
    env = _env(TaskSpec(env=SINGLE, backend="async"))
    env.reset(SEED)
    for process in _processes(env):
        os.kill(process.pid, signal.SIGINT)
    row = env.step(np.zeros(NUM_ENVS, np.int64))
    assert row.next_observation[:, 2].tolist() == [1.0] * NUM_ENVS
    assert signal.getsignal(signal.SIGINT) is handler


SCRIPT = """
import os, sys
from lit_mtdqn.envs import make_vector_env
from lit_mtdqn.types import TaskSpec
if __name__ == "__main__":
    env = make_vector_env("a", TaskSpec(env="CartPole-v1", backend="async"), 2)
    env.reset(seed=0)
    print(*(process.pid for process in env.processes), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 30
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "processes outlived their parent"
        time.sleep(0.1)


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _servers() -> set[int]:
    return {resource_tracker._resource_tracker._pid, forkserver._forkserver._forkserver_pid}  # type: ignore[attr-defined]
