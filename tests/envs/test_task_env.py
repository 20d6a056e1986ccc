from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from helpers.asserts import complaint
from helpers.counting_env import (
    PATTERN,
    SINGLE,
    VECTOR,
    identity_of,
    mask_at,
    reward_at,
    signed_length,
)
from helpers.oracle import timeline
from helpers.showing_env import SHOWING
from numpy.typing import NDArray

from lit_mtdqn.envs import Layout, TaskEnv, probe_tasks
from lit_mtdqn.types import StepRow, TaskSpec

Array = NDArray[Any]
NUM_ENVS = 3
SEED = 2**24 + 10
IDENTITIES = [identity_of(SEED + place) for place in range(NUM_ENVS)]
COUNTING = pytest.mark.parametrize(
    "env",
    [
        TaskSpec(env=SINGLE),
        TaskSpec(env=VECTOR),
        TaskSpec(env="Counting-v0"),
        TaskSpec(env=SINGLE, backend="async"),
    ],
    ids=["sync", "vector", "registered", "async"],
)


DTYPES = {
    "observation": "float32",
    "reward": "float32",
    "terminated": "bool",
    "truncated": "bool",
    "next_observation": "float32",
    "valid": "bool",
}


BUILT: list[TaskEnv] = []


@pytest.fixture(autouse=True)
def _close_what_was_built() -> Iterator[None]:
    """End the processes of environments, which nothing else would before the tests end."""
    yield
    while BUILT:
        BUILT.pop().close()


def _env(spec: TaskSpec, layout: Layout | None = None) -> TaskEnv:
    env = TaskEnv("a", spec, NUM_ENVS, layout or probe_tasks({"a": spec})[0])
    BUILT.append(env)
    return env


def _play(env: TaskEnv, vector_steps: int) -> list[StepRow]:
    env.reset(SEED)
    actions = np.random.default_rng(0).integers(2, size=(vector_steps, NUM_ENVS))
    return [env.step(action) for action in actions]


@COUNTING
def test_an_idle_row_steps_nothing_and_time_goes_on_where_it_stood(env: TaskSpec) -> None:
    idling, plain = (_env(replace(env, action_mask_key="mask")) for _ in range(2))
    action = np.zeros(NUM_ENVS, np.int64)
    for one in (idling, plain):
        one.reset(SEED)
    for _ in range(12):
        idle = idling.idle(action)
        for name in ("valid", "reward", "terminated", "truncated"):
            assert not getattr(idle, name).any()
        assert not idle.extra["success"].any()
        expected, row = plain.step(action), idling.step(action)
        for name, array in _arrays(expected).items():
            np.testing.assert_array_equal(_arrays(row)[name], array)
        for shown in (idle.observation, idle.next_observation):
            np.testing.assert_array_equal(shown, row.observation)
        for mask in (idle.action_mask, idle.next_action_mask):
            np.testing.assert_array_equal(mask, row.action_mask)


def _arrays(row: StepRow) -> dict[str, Any]:
    return {**row._replace(extra={})._asdict(), **row.extra}


@COUNTING
def test_rows_tell_what_the_environments_did_and_what_it_led_to(env: TaskSpec) -> None:
    rows = _play(_env(env), 20)
    actions = np.random.default_rng(0).integers(2, size=(20, NUM_ENVS))
    for place, identity in enumerate(IDENTITIES):
        for row, action, moment in zip(rows, actions, timeline(identity, 20), strict=True):
            assert row.action[place] == action[place]
            assert row.valid[place] == (moment is not None)
            if moment is None:
                continue
            episode, step = moment
            length = signed_length(PATTERN, identity, episode)
            ended = step + 1 == abs(length)
            assert row.observation[place].tolist() == [identity, episode, step]
            assert row.next_observation[place].tolist() == [identity, episode, step + 1]
            assert row.reward[place] == reward_at(identity, episode, step)
            assert row.terminated[place] == (ended and length > 0)
            assert row.truncated[place] == (ended and length < 0)


@COUNTING
def test_reset_rows_have_no_reward_and_no_ending_and_lead_to_a_first_observation(
    env: TaskSpec,
) -> None:
    rows = _play(_env(env), 40)
    reset = [(row, place) for row in rows for place in np.flatnonzero(~row.valid)]
    assert len(reset) > 20
    for row, place in reset:
        assert (row.reward[place], row.terminated[place], row.truncated[place]) == (0, 0, 0)
        before, after = row.observation[place], row.next_observation[place]
        assert after.tolist() == [before[0], before[1] + 1, 0]


@COUNTING
def test_rows_have_one_type_of_number_whatever_the_environment_returns(env: TaskSpec) -> None:
    row = _play(_env(env), 1)[0]
    fields = {name: array.dtype.name for name, array in row._asdict().items() if name in DTYPES}
    assert fields == DTYPES


@COUNTING
def test_later_steps_change_no_earlier_row(env: TaskSpec) -> None:
    task_env = _env(replace(env, action_mask_key="mask"))
    task_env.reset(SEED)
    row = task_env.step(np.zeros(NUM_ENVS, np.int64))
    arrays = [array for array in row if isinstance(array, np.ndarray)]
    copies = [array.copy() for array in arrays]
    for _ in range(5):
        task_env.step(np.zeros(NUM_ENVS, np.int64))
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@COUNTING
def test_a_reset_starts_every_copy_from_a_seed_of_its_own(env: TaskSpec) -> None:
    task_env = _env(env)
    for seed in (5, 900):
        observation, mask = task_env.reset(seed)
        assert observation.tolist() == [[seed + place, 0, 0] for place in range(NUM_ENVS)]
        assert mask is None


@COUNTING
def test_a_reset_in_the_middle_of_an_episode_leaves_no_reset_row(env: TaskSpec) -> None:
    task_env = _env(replace(env, kwargs={"pattern": (1,)}))
    task_env.reset(SEED)
    assert task_env.step(np.zeros(NUM_ENVS, np.int64)).terminated.all()
    task_env.reset(SEED)
    assert task_env.step(np.zeros(NUM_ENVS, np.int64)).valid.all()


@COUNTING
def test_a_time_limit_truncates_and_keeps_the_final_observation(env: TaskSpec) -> None:
    spec = replace(env, kwargs={"pattern": (9,)}, time_limit=2)
    _, second, reset = _play(_env(spec), 3)
    assert second.truncated.all()
    assert not second.terminated.any()
    assert second.next_observation[:, 2].tolist() == [2.0] * NUM_ENVS
    assert not reset.valid.any()


def test_actions_count_from_0_whatever_the_environments_first_action_is() -> None:
    kwargs = {"first_action": -7, "num_actions": 3}
    task_env = _env(TaskSpec(env=SINGLE, kwargs=kwargs))
    task_env.reset(SEED)
    row = task_env.step(np.array([0, 1, 2]))  # the environment asserts that it knows them
    assert row.action.tolist() == [0, 1, 2]


@COUNTING
def test_allowed_actions_come_with_the_observations_that_they_belong_to(env: TaskSpec) -> None:
    spec = replace(env, action_mask_key="mask", kwargs={"num_actions": 3})
    layout = Layout((3,), 5, np.dtype(np.float32))
    task_env = _env(spec, layout)
    _, mask = task_env.reset(SEED)
    rows = [task_env.step(np.zeros(NUM_ENVS, np.int64)) for _ in range(12)]
    masks = [mask, *(row.next_action_mask for row in rows)]
    for row, current, following in zip(rows, masks, masks[1:], strict=False):
        assert row.action_mask is current
        for found, observations in ((current, row.observation), (following, row.next_observation)):
            assert found is not None
            for allowed, (identity, _, step) in zip(found, observations, strict=True):
                wanted = [*mask_at(int(identity), int(step), 3), False, False]
                assert allowed.tolist() == wanted


def test_a_mask_that_the_environment_does_not_report_is_refused() -> None:
    task_env = _env(TaskSpec(env=SINGLE, action_mask_key="allowed"))
    with pytest.raises(
        ValueError, match=r"^`tasks\.a\.action_mask_key` must be .+Got 'allowed'; .+'mask'"
    ):
        task_env.reset(SEED)


@COUNTING
def test_success_is_reported_once_at_the_end_of_an_episode(env: TaskSpec) -> None:
    rows = _play(_env(replace(env, success_key="success")), 20)
    for row in rows:
        np.testing.assert_array_equal(row.extra["success"], row.terminated)


def test_without_a_key_no_episode_is_a_success() -> None:
    rows = _play(_env(TaskSpec(env=VECTOR)), 20)
    assert not any(row.extra["success"].any() for row in rows)


PIXELS = np.arange(5 * 6 * 2).reshape(5, 6, 2)
SHOWN: list[tuple[Any, list[Any], Any]] = [
    (spaces.Discrete(3, start=2), [2, 4, 3], np.eye(3)[[0, 2, 1]]),
    (
        spaces.MultiDiscrete([2, 3]),
        [np.array([1, 0]), np.array([0, 2])],
        [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]],
    ),
    (spaces.Box(-1, 1, (2,), np.float64), [np.array([0.5, -1.0])], [[0.5, -1.0]]),
    (
        spaces.Box(0, 1, (5, 6, 2), np.bool_),
        [PIXELS % 2 == 0, PIXELS % 3 == 0],
        [(PIXELS % 2 == 0).transpose(2, 0, 1), (PIXELS % 3 == 0).transpose(2, 0, 1)],
    ),
    (
        spaces.Box(0, 255, (5, 6, 2), np.uint8),
        [PIXELS.astype(np.uint8)],
        [PIXELS.transpose(2, 0, 1)],
    ),
]


@pytest.mark.parametrize(("space", "shown", "expected"), SHOWN, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("padding", [0, 3])
def test_observations_are_converted_and_padded_with_zeros(
    space: Any, shown: Sequence[Any], expected: Sequence[Any], padding: int
) -> None:
    spec = TaskSpec(env=SHOWING, kwargs={"observation_space": space, "observations": shown})
    layout, _ = probe_tasks({"a": spec})
    size, *rest = layout.observation_shape
    padded = Layout((size + padding, *rest), layout.num_actions, layout.dtype)
    rows = _play(_env(spec, padded), 4)
    for number, row in enumerate(rows, start=1):
        wanted = np.asarray(expected[number % len(expected)])
        assert row.next_observation.dtype == layout.dtype
        assert row.next_observation.shape == (NUM_ENVS, size + padding, *rest)
        for copy in row.next_observation:
            np.testing.assert_array_equal(copy[:size], wanted)
            assert not copy[size:].any()


def test_a_state_continues_exactly_in_other_environments() -> None:
    spec = TaskSpec(env=VECTOR, action_mask_key="mask")
    first, second = _env(spec), _env(spec)
    _play(first, 4)
    state = first.get_state()
    assert state is not None
    second.set_state(state)
    for _ in range(12):
        action = np.ones(NUM_ENVS, np.int64)
        expected, actual = first.step(action), second.step(action)
        for name, array in _arrays(expected).items():
            np.testing.assert_array_equal(_arrays(actual)[name], array, err_msg=name)


def test_neither_steps_nor_resets_reach_a_state() -> None:
    env = _env(TaskSpec(env=VECTOR, kwargs={"pattern": (4,)}))
    _play(env, 4)
    state = env.get_state()
    assert state is not None
    env.reset(SEED + 1)
    env.step(np.zeros(NUM_ENVS, np.int64))
    env.set_state(state)
    row = env.step(np.zeros(NUM_ENVS, np.int64))
    assert not row.valid.any()
    assert row.observation.tolist() == [[identity, 0, 4] for identity in IDENTITIES]
    assert row.next_observation.tolist() == [[identity, 1, 0] for identity in IDENTITIES]


def test_gymnasiums_own_batched_cartpole_continues_exactly() -> None:
    first, second = (_env(TaskSpec(env="CartPole-v1", time_limit=9)) for _ in range(2))
    first.start(SEED)
    actions = np.random.default_rng(1).integers(0, 2, (40, NUM_ENVS))
    for action in actions[:20]:
        first.step(action)
    state = first.get_state()
    assert state is not None
    second.set_state(deepcopy(state))
    observation, _ = second.start(SEED)
    for action in actions[20:]:
        ours, theirs = first.step(action), second.step(action)
        np.testing.assert_array_equal(observation, ours.observation)
        for name in ("observation", "reward", "terminated", "truncated", "next_observation"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        observation = theirs.next_observation


def test_environments_without_states_say_so() -> None:
    env = _env(TaskSpec(env=SINGLE))
    env.reset(SEED)
    assert env.get_state() is None


def test_arguments_override_those_of_the_spec() -> None:
    spec = TaskSpec(env=SINGLE, kwargs={"offset": 10.0})
    env = TaskEnv("a", spec, 1, probe_tasks({"a": spec})[0], offset=20.0)
    env.reset(4)
    assert env.step(np.zeros(1, np.int64)).reward.tolist() == [reward_at(4, 0, 0) + 20.0]


def test_closing_closes_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr("helpers.counting_env.CountingEnv.close", lambda self: closed.append(True))
    env = TaskEnv("a", TaskSpec(env=SINGLE), NUM_ENVS, Layout((3,), 2, np.dtype(np.float32)))
    env.close()
    assert len(closed) == NUM_ENVS


@pytest.mark.parametrize("actions", [spaces.Box(-1.0, 1.0, (1,)), spaces.MultiDiscrete([2, 2])])
def test_an_action_space_that_is_not_discrete_is_refused(actions: Any) -> None:
    spec = TaskSpec(
        env=SHOWING,
        kwargs={"observation_space": spaces.Discrete(2), "action_space": actions},
    )
    with pytest.raises(ValueError, match=complaint("tasks.a.env")):
        _env(spec, Layout((2,), 2, np.dtype(np.float32)))
