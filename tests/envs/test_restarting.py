"""Environments that fail, and go on as new ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.asserts import complaint
from helpers.counting_env import SINGLE, VECTOR, identity_of
from helpers.failing_env import FAILING
from helpers.runs import fit, small_data, small_model
from lightning.pytorch.callbacks import Callback

from lit_mtdqn.envs import TaskEnv, make_vector_env, probe_tasks
from lit_mtdqn.envs.restarting import LONGEST_WAIT, waiting_time
from lit_mtdqn.replay import TransitionAccumulator
from lit_mtdqn.rollout import EpisodeStatistics
from lit_mtdqn.types import StepRow, TaskSpec

NUM_ENVS = 3
SEED = 2**24 + 10
FAULTY = 2  # the copy that fails, in an episode of three steps
AFTER = 2  # steps before it does
INSIDE = ["raise", "nan", "shape", "kind", "reward"]
# Gymnasium tells of a failed process by warnings, with its traceback.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*ERROR. (Received the following|\\n?Traceback|Raising)"
)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_mtdqn.envs.restarting.FIRST_WAIT", 0.0)


@pytest.fixture
def built() -> Iterator[list[TaskEnv]]:
    envs: list[TaskEnv] = []
    yield envs
    for env in envs:
        env.close()


def _failing(how: str, backend: Any = "sync", restarts: int = 1, **options: Any) -> TaskSpec:
    parent = os.getpid() if backend == "async" else 0
    kwargs = {"how": how, "when": "step", "only_in": identity_of(SEED + FAULTY), "parent": parent}
    return TaskSpec(
        env=FAILING,
        kwargs={**kwargs, "after": AFTER},
        backend=backend,
        restarts=restarts,
        **options,
    )


def _play(spec: TaskSpec, vector_steps: int, built: list[TaskEnv]) -> list[StepRow]:
    env = TaskEnv("maze", spec, NUM_ENVS, probe_tasks({"maze": spec})[0])
    built.append(env)
    env.reset(SEED)
    return [env.step(np.zeros(NUM_ENVS, np.int64)) for _ in range(vector_steps)]


def _assert_cut(rows: list[StepRow], sound: list[StepRow]) -> None:
    """Compare rows with those of copies that never fail."""
    cut, reset, first = rows[AFTER : AFTER + 3]
    assert not cut.valid[FAULTY]
    assert cut.truncated[FAULTY]
    assert not cut.terminated[FAULTY]
    assert cut.reward[FAULTY] == 0.0
    np.testing.assert_array_equal(cut.next_observation[FAULTY], cut.observation[FAULTY])
    assert not reset.valid[FAULTY]
    assert not reset.truncated[FAULTY]
    # A new one, of a seed of its own, at the start of an episode.
    assert reset.next_observation[FAULTY, 1:].tolist() == [0.0, 0.0]
    assert reset.next_observation[FAULTY, 0] != cut.observation[FAULTY, 0]
    assert first.valid[FAULTY]
    others = np.arange(NUM_ENVS) != FAULTY
    for row, wanted in zip(rows, sound, strict=True):
        np.testing.assert_array_equal(row.next_observation[others], wanted.next_observation[others])
        np.testing.assert_array_equal(row.valid[others], wanted.valid[others])
    for row, wanted in zip(rows[:AFTER], sound[:AFTER], strict=True):
        np.testing.assert_array_equal(row.next_observation, wanted.next_observation)


@pytest.mark.parametrize("how", INSIDE)
def test_a_copy_that_fails_is_replaced_while_the_others_go_on(
    how: str, built: list[TaskEnv], caplog: pytest.LogCaptureFixture
) -> None:
    rows = _play(_failing(how), AFTER + 4, built)
    _assert_cut(rows, _play(TaskSpec(env=SINGLE), AFTER + 4, built))
    (line,) = caplog.messages
    assert line.startswith("Task maze: restarted after ")
    assert line.endswith("; 0 restarts left.")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raise", "exit", "hang"])
def test_a_process_that_fails_is_replaced_while_the_others_go_on(
    how: str, built: list[TaskEnv]
) -> None:
    timeout = 10.0 if how == "hang" else None
    rows = _play(_failing(how, "async", step_timeout=timeout), AFTER + 4, built)
    _assert_cut(rows, _play(TaskSpec(env=SINGLE), AFTER + 4, built))


@pytest.mark.slow
def test_a_start_may_take_longer_than_a_step(built: list[TaskEnv]) -> None:
    spec = _failing("hang", "async", step_timeout=1.0)
    spec = replace(spec, kwargs={**spec.kwargs, "building": 2.0})
    rows = _play(spec, AFTER + 4, built)
    _assert_cut(rows, _play(TaskSpec(env=SINGLE), AFTER + 4, built))


@pytest.mark.parametrize("restarts", [0, 1])
def test_past_its_restarts_a_run_ends_with_the_traceback(
    restarts: int, built: list[TaskEnv]
) -> None:
    spec = _failing("raise", restarts=restarts)
    everywhere = replace(spec, kwargs={**spec.kwargs, "only_in": None})
    with pytest.raises(Exception, match="wheel number 3") as raised:
        _play(everywhere, AFTER + 3, built)
    text = "".join([str(raised.value), *(str(entry.name) for entry in raised.traceback)])
    assert "_fail" in text


def test_a_reset_that_fails_is_tried_again(built: list[TaskEnv]) -> None:
    spec = _failing("raise")
    spec = replace(spec, kwargs={**spec.kwargs, "when": "reset"})
    rows = _play(spec, 2, built)
    assert rows[0].valid.all()
    assert rows[0].observation[FAULTY, 0] != identity_of(SEED + FAULTY)


@pytest.mark.parametrize("n_step", [1, 2, 3])
def test_what_waits_for_a_step_that_fails_ends_at_the_observation_before_it(
    n_step: int, built: list[TaskEnv]
) -> None:
    gamma = 0.5
    spec = _failing("raise", n_step=n_step, gamma=gamma)
    rows = _play(spec, AFTER + 2, built)
    accumulator = TransitionAccumulator([spec])
    for row in rows:
        columns = [None if column is None else column[None] for column in row[:-1]]
        accumulator.add(StepRow._make((*columns, {})))
    (emitted,) = accumulator.emit()
    name = rows[0].observation[FAULTY, 0]
    own = emitted["observation"][:, 0] == name
    rewards = [float(row.reward[FAULTY]) for row in rows[:AFTER]]
    for start in range(AFTER):
        end = min(start + n_step, AFTER)
        found = np.flatnonzero(own)[start]
        folded = sum(gamma**k * rewards[start + k] for k in range(end - start))
        assert emitted["reward"][found] == pytest.approx(folded)
        assert emitted["discount"][found] == gamma ** (end - start)
        wanted = rows[end - 1].next_observation[FAULTY]
        np.testing.assert_array_equal(emitted["next_observation"][found], wanted)
    assert own.sum() == AFTER


def test_an_episode_that_was_cut_off_is_no_finished_one(built: list[TaskEnv]) -> None:
    statistics = EpisodeStatistics(["maze"], NUM_ENVS, [False])
    for row in _play(_failing("raise"), AFTER + 1, built):
        columns = [None if column is None else column[None] for column in row[:-1]]
        extra = {name: column[None] for name, column in row.extra.items()}
        statistics.add(StepRow._make((*columns, extra)))
    assert statistics.metrics()["rollout/restarts/maze"] == 1.0
    sound = _play(TaskSpec(env=SINGLE), AFTER + 1, built)
    ended = sum(np.delete(row.terminated | row.truncated, FAULTY).sum() for row in sound)
    assert statistics.episodes["maze"] == ended == 2


class _Metrics(Callback):
    def __init__(self) -> None:
        self.restarts: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.restarts.append(float(trainer.callback_metrics.get("rollout/restarts/maze", 0.0)))


def test_a_whole_run_goes_on_after_faults_and_counts_them() -> None:
    spec = TaskSpec(
        env=FAILING,
        kwargs={"how": "nan", "when": "step", "only_in": None, "parent": 0, "after": 20},
        backend="sync",
        restarts=100,
        n_step=3,
        evaluates=False,
    )
    data = small_data({"maze": spec})
    model, metrics = small_model(data), _Metrics()
    fit(data, model, metrics, log_every_n_steps=1)
    assert metrics.restarts[-1] >= 4
    assert data.clock.total_env_steps >= 100
    assert all(parameter.isfinite().all() for parameter in model.network.parameters())


def test_waits_grow_with_faults_in_a_row_and_end_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_mtdqn.envs.restarting.FIRST_WAIT", 0.1)
    assert [waiting_time(faults) for faults in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert waiting_time(1000) == LONGEST_WAIT


@pytest.mark.parametrize("backend", ["auto", "vector"])
def test_batched_forms_have_no_restarts(backend: Any) -> None:
    spec = TaskSpec(env=VECTOR, backend=backend, restarts=1)
    with pytest.raises(ValueError, match=complaint("tasks.maze.restarts")):
        make_vector_env("maze", spec, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"restarts": -1},
        {"restarts": 1, "backend": "sync", "step_timeout": 1.0},
        {"restarts": 1, "backend": "async", "step_timeout": 0.0},
    ],
)
def test_restarts_and_timeouts_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TaskSpec(env=SINGLE, **options)
