from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting_env import SINGLE, VECTOR, identity_of
from helpers.oracle import Expected, completed_between, transitions
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lit_mtdqn.envs import TaskEnv, probe_tasks
from lit_mtdqn.replay import TransitionAccumulator
from lit_mtdqn.rollout import Collector, EpsilonGreedy
from lit_mtdqn.types import StepRow, TaskSpec

Array = NDArray[Any]
NUM_ENVS = 3
BACKENDS = pytest.mark.parametrize("env", [SINGLE, VECTOR], ids=["sync", "vector"])
# 24 vector steps, cut into phases in three ways.
LONG, UNEVEN, SHORT = [24], [1, 7, 3, 13], [2] * 12
PHASES = pytest.mark.parametrize("phases", [LONG, UNEVEN, SHORT], ids=["one", "uneven", "of 2"])


class _NoPolicy:
    def action_values(self, observation: object, task: object) -> Any:
        raise AssertionError("random actions need no values")


def _play(tasks: dict[str, TaskSpec], vector_steps: int, seeds: Sequence[int]) -> list[StepRow]:
    """Return rows [S, N, ...] of random play."""
    layout, infos = probe_tasks(tasks)
    masks = np.arange(layout.num_actions) < np.array([[info.num_actions] for info in infos])
    envs = [TaskEnv(name, spec, NUM_ENVS, layout) for name, spec in tasks.items()]
    places = range(len(tasks))
    collector = Collector(
        envs, _NoPolicy(), places, masks, EpsilonGreedy(), lambda: np.ones(len(envs)), seeds=places
    )
    stream = collector.steps(seeds)
    return [next(stream) for _ in range(vector_steps)]


def _fold(
    specs: Sequence[TaskSpec], rows: Sequence[StepRow], phases: Sequence[int]
) -> list[list[dict[str, Array]]]:
    """Return what each phase emits for each task."""
    accumulator = TransitionAccumulator(specs)
    emitted, remaining = [], iter(rows)
    for length in phases:
        for _ in range(length):
            accumulator.add(next(remaining))
        emitted.append(accumulator.emit())
    return emitted


def _assert_transitions(emitted: dict[str, Array], expected: Sequence[Expected]) -> None:
    """Compare every field of every transition, in order."""
    assert len(emitted["action"]) == len(expected)
    for name, array in emitted.items():
        wanted = np.array([getattr(row, name) for row in expected], array.dtype)
        np.testing.assert_allclose(array, wanted.reshape(array.shape), rtol=1e-6, err_msg=name)


def _identities(seed: int) -> list[int]:
    return [identity_of(seed + place) for place in range(NUM_ENVS)]


@BACKENDS
@PHASES
@pytest.mark.parametrize("n_step", [1, 3, 6])
def test_every_transition_is_emitted_once_by_the_phase_that_completes_it(
    env: str, phases: list[int], n_step: int
) -> None:
    spec = TaskSpec(
        env=env, gamma=0.9, n_step=n_step, reward_clip=(-1.0, 2.0), action_mask_key="mask"
    )
    rows = _play({"count": spec}, sum(phases), [10])
    actions = np.stack([row.action[0] for row in rows])
    expected = transitions(_identities(10), actions, spec, num_actions=2)
    border = 0
    for (emitted,), length in zip(_fold([spec], rows, phases), phases, strict=True):
        _assert_transitions(emitted, completed_between(expected, border, border + length))
        border += length


@PHASES
def test_tasks_fold_by_their_own_gamma_and_number_of_steps(phases: list[int]) -> None:
    tasks = {
        "short": TaskSpec(env=VECTOR, gamma=0.5),
        "long": TaskSpec(env=VECTOR, gamma=0.8, n_step=4, kwargs={"pattern": (7, -2)}),
        "clipped": TaskSpec(env=SINGLE, gamma=1.0, n_step=2, reward_clip=(0.0, 1.0)),
    }
    specs = list(tasks.values())
    seeds = [3, 70, 500]
    rows = _play(tasks, sum(phases), seeds)
    border = 0
    for emitted, length in zip(_fold(specs, rows, phases), phases, strict=True):
        for place, spec in enumerate(specs):
            actions = np.stack([row.action[place] for row in rows])
            expected = transitions(_identities(seeds[place]), actions, spec, num_actions=2)
            _assert_transitions(
                emitted[place], completed_between(expected, border, border + length)
            )
        border += length


STILLS = st.lists(st.tuples(st.booleans(), st.booleans()).filter(any), min_size=30, max_size=60)


@given(acting=STILLS, borders=st.sets(st.integers(1, 59), max_size=6))
@settings(max_examples=40, deadline=None)
def test_time_does_not_pass_for_a_task_that_stands_still(
    acting: list[tuple[bool, bool]], borders: set[int]
) -> None:
    """Two tasks act in some vector steps each; phases end anywhere."""
    tasks = {
        "a": TaskSpec(env=VECTOR, gamma=0.5, n_step=4),
        "b": TaskSpec(env=VECTOR, gamma=0.9, n_step=2),
    }
    specs, seeds = list(tasks.values()), [3, 70]
    rows = _play(tasks, len(acting), seeds)
    accumulator = TransitionAccumulator(specs)
    done, before = [0, 0], [0, 0]
    for time, acts in enumerate(acting, 1):
        accumulator.add(_spread(rows, done, acts))
        done = [count + act for count, act in zip(done, acts, strict=True)]
        if time not in borders and time != len(acting):
            continue
        for place, emitted in enumerate(accumulator.emit()):
            actions = np.stack([row.action[place] for row in rows])
            expected = transitions(_identities(seeds[place]), actions, specs[place], num_actions=2)
            _assert_transitions(emitted, completed_between(expected, before[place], done[place]))
        before = done


def _spread(rows: Sequence[StepRow], done: Sequence[int], acts: Sequence[bool]) -> StepRow:
    """Return a vector step in which each task makes its own next step, or none."""
    fields = []
    for name in StepRow._fields[:7]:
        column = np.stack([getattr(rows[d], name)[place] for place, d in enumerate(done)])
        if name in ("terminated", "truncated", "valid", "reward"):
            column[~np.array(acts)] = 0
        fields.append(column)
    return StepRow._make((*fields, None, None, {}))


def _row(time: int, reward: float, ending: str = "", valid: bool = True) -> StepRow:
    """Return one vector step of one task with one environment, observed as the time."""
    return StepRow(
        observation=np.full((1, 1, 1), time, np.float32),
        action=np.full((1, 1), time % 2),
        reward=np.full((1, 1), reward, np.float32),
        terminated=np.full((1, 1), ending == "terminated"),
        truncated=np.full((1, 1), ending == "truncated"),
        next_observation=np.full((1, 1, 1), time + 1, np.float32),
        valid=np.full((1, 1), valid),
    )


@pytest.mark.parametrize(
    ("ending", "discounts"),
    [("terminated", [0.25, 0.0, 0.0]), ("truncated", [0.25, 0.25, 0.5])],
)
def test_truncation_bootstraps_from_the_final_observation_but_termination_does_not(
    ending: str, discounts: list[float]
) -> None:
    accumulator = TransitionAccumulator([TaskSpec(env="count", gamma=0.5, n_step=2)])
    for row in [_row(0, 1.0), _row(1, 2.0), _row(2, 4.0, ending), _row(3, 0.0, valid=False)]:
        accumulator.add(row)
    (emitted,) = accumulator.emit()
    assert emitted["observation"].ravel().tolist() == [0.0, 1.0, 2.0]
    assert emitted["reward"].tolist() == [2.0, 4.0, 4.0]
    assert emitted["discount"].tolist() == discounts
    assert emitted["next_observation"].ravel().tolist() == [2.0, 3.0, 3.0]


def test_reset_rows_become_no_transitions() -> None:
    accumulator = TransitionAccumulator([TaskSpec(env="count")])
    for row in [_row(0, 1.0, "terminated"), _row(1, 0.0, valid=False), _row(2, 3.0)]:
        accumulator.add(row)
    (emitted,) = accumulator.emit()
    assert emitted["observation"].ravel().tolist() == [0.0, 2.0]


def test_rewards_are_clipped_one_by_one_before_they_are_folded() -> None:
    spec = TaskSpec(env="count", gamma=1.0, n_step=3, reward_clip=(-1.0, 1.0))
    accumulator = TransitionAccumulator([spec])
    for time, reward in enumerate([5.0, -3.0, 0.5]):
        accumulator.add(_row(time, reward))
    (emitted,) = accumulator.emit()
    assert emitted["reward"].tolist() == [0.5]


@pytest.mark.parametrize("reward", [np.inf, -np.inf, np.nan])
def test_no_bound_hides_a_reward_that_is_no_number(reward: float) -> None:
    accumulator = TransitionAccumulator([TaskSpec(env="count", reward_clip=(-1.0, 1.0))])
    accumulator.add(_row(0, reward))
    (emitted,) = accumulator.emit()
    assert not np.isfinite(emitted["reward"]).any()
    assert emitted["reward"].dtype == np.float32


def test_transitions_have_the_types_that_replay_keeps() -> None:
    accumulator = TransitionAccumulator([TaskSpec(env="count", gamma=0.9)])
    accumulator.add(_row(0, 1.0))
    (emitted,) = accumulator.emit()
    assert {name: array.dtype.name for name, array in emitted.items()} == {
        "observation": "float32",
        "action": "int64",
        "reward": "float32",
        "discount": "float32",
        "next_observation": "float32",
    }


@PHASES
def test_labels_stay_with_the_observation_that_they_are_of(phases: list[int]) -> None:
    specs = {"a": TaskSpec(env=VECTOR, n_step=3), "b": TaskSpec(env=SINGLE, n_step=2)}
    accumulator = TransitionAccumulator(list(specs.values()), ["label"])
    rows = iter(_play(specs, 24, [3, 5]))
    emitted = 0
    for length in phases:
        for step in range(length):
            row = next(rows)
            if step % 4 == 1:
                # The second task stands still.
                row.valid[1] = False
            label = 2.0 * row.observation[..., 1:]
            accumulator.add(row._replace(extra={**row.extra, "label": label}))
        for columns in accumulator.emit():
            assert "success" not in columns
            expected = 2.0 * columns["observation"][..., 1:]
            np.testing.assert_array_equal(columns["label"], expected)
            emitted += len(expected)
    assert emitted > 60


def test_without_new_rows_nothing_is_emitted() -> None:
    accumulator = TransitionAccumulator([TaskSpec(env="count"), TaskSpec(env="count")])
    assert accumulator.emit() == [{}, {}]


EPISODES = st.tuples(st.integers(1, 12), st.sampled_from(["terminated", "truncated"]))


@given(
    episodes=st.lists(EPISODES, min_size=1, max_size=4),
    n_step=st.integers(1, 7),
    length=st.integers(1, 4),
)
@settings(max_examples=50, deadline=None)
def test_the_borders_of_phases_leave_no_trace(
    episodes: list[tuple[int, str]], n_step: int, length: int
) -> None:
    rows: list[StepRow] = []
    for steps, ending in episodes:
        first, last = len(rows), len(rows) + steps - 1
        rows.extend(_row(time, float(time)) for time in range(first, last))
        rows.append(_row(last, float(last), ending))
        rows.append(_row(last + 1, 0.0, valid=False))
    spec = TaskSpec(env="count", gamma=0.9, n_step=n_step)
    ((whole,),) = _fold([spec], rows, [len(rows)])
    phases = [length] * (len(rows) // length)
    rest = len(rows) - sum(phases)
    parts = [emitted for (emitted,) in _fold([spec], rows, [*phases, rest]) if emitted]
    order = np.argsort(np.concatenate([part["observation"].ravel() for part in parts]))
    for name, array in whole.items():
        pieces = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(pieces[order], array, err_msg=name)


def test_rows_of_episodes_that_do_not_go_on_are_never_emitted() -> None:
    """Two tasks of one copy and 3-step returns; the second one's episode starts anew."""
    specs = [TaskSpec(env=VECTOR, n_step=3), TaskSpec(env=VECTOR, n_step=3)]

    def row(number: int) -> StepRow:
        at = np.full((2, 1, 1), number, np.float32)
        no, yes = np.zeros((2, 1), bool), np.ones((2, 1), bool)
        return StepRow(at, no.astype(np.int64), at[..., 0], no, no, at + 1, yes, extra={})

    first, second = TransitionAccumulator(specs), TransitionAccumulator(specs)
    for number in range(4):
        first.add(row(number))
    first.emit()
    second.load_state_dict(first.state_dict(), np.array([True, False]))
    for number in range(4, 8):
        second.add(row(number))
    kept, anew = (rows["observation"][:, 0].tolist() for rows in second.emit())
    assert kept == [2.0, 3.0, 4.0, 5.0]
    assert anew == [4.0, 5.0]


def test_rows_that_were_saved_go_on_where_the_others_are() -> None:
    """Whatever a checkpoint holds is read to the CPU."""
    specs, labels = [TaskSpec(env=VECTOR, n_step=3)], ["label"]
    cpu, meta = torch.device("cpu"), torch.device("meta")

    def row(device: torch.device) -> StepRow:
        number = torch.zeros(1, 4, device=device)
        no, mask = number.bool(), torch.ones(1, 4, 2, dtype=torch.bool, device=device)
        seen, extra = number[..., None], {"label": number[..., None]}
        return StepRow(seen, number.long(), number, no, no, seen, ~no, mask, mask, extra)

    saved, resumed = (TransitionAccumulator(specs, labels, device) for device in (cpu, meta))
    for _ in range(5):
        saved.add(row(cpu))
    saved.emit(saved.fold().tolist())
    resumed.load_state_dict(saved.state_dict(), np.array([True]))
    resumed.add(row(meta))
    resumed.fold()
    (emitted,) = resumed.emit([4])
    assert {column.device for column in emitted.values()} == {meta}
    assert {"label", "next_action_mask"} < set(emitted)
