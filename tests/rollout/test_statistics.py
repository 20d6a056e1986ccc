from collections.abc import Iterable
from itertools import islice

import numpy as np
import pytest
from helpers.counting_env import SINGLE, VECTOR, reward_at, signed_length
from helpers.policies import constant

from lit_mtdqn.envs import TaskEnv, probe_tasks
from lit_mtdqn.rollout import Collector, EpisodeStatistics, EpsilonGreedy
from lit_mtdqn.types import StepRow, TaskSpec

NUM_ENVS = 2
PATTERN = (3, -5, 1)
TASKS = {
    "left": TaskSpec(
        env=SINGLE, kwargs={"pattern": PATTERN}, success_key="success", reward_clip=(0.0, 1.0)
    ),
    "right": TaskSpec(env=VECTOR, kwargs={"pattern": PATTERN}),
}
SEEDS = {"left": 10, "right": 500}


def _rows(vector_steps: int) -> Iterable[StepRow]:
    layout, _ = probe_tasks(TASKS)
    envs = [TaskEnv(name, spec, NUM_ENVS, layout) for name, spec in TASKS.items()]
    mask = np.ones((2, 2), bool)
    collector = Collector(
        envs, constant(0, 1), [0, 1], mask, EpsilonGreedy(), lambda: np.zeros(2), seeds=[0, 1]
    )
    return islice(collector.steps(list(SEEDS.values())), vector_steps)


def _statistics(vector_steps: int) -> EpisodeStatistics:
    statistics = EpisodeStatistics(["left", "right"], NUM_ENVS, [True, False])
    for row in _rows(vector_steps):
        statistics.add(row)
    return statistics


def _finished(task: str, vector_steps: int) -> list[tuple[float, int, bool]]:
    """Return (return, length, success) of all episodes over within some vector steps."""
    found = []
    for identity in range(SEEDS[task], SEEDS[task] + NUM_ENVS):
        episode, time = 0, 0
        while True:
            length = signed_length(PATTERN, identity, episode)
            time += abs(length)
            if time > vector_steps:
                break
            rewards = [reward_at(identity, episode, step) for step in range(abs(length))]
            found.append((sum(rewards), abs(length), length > 0))
            episode, time = episode + 1, time + 1  # the reset row
    return found


@pytest.mark.parametrize("vector_steps", [5, 12, 30])
def test_metrics_are_means_of_raw_returns_of_lengths_without_reset_rows_and_of_successes(
    vector_steps: int,
) -> None:
    statistics = _statistics(vector_steps)
    expected = {}
    for task in TASKS:
        returns, lengths, successes = zip(*_finished(task, vector_steps), strict=True)
        expected[f"rollout/episode_return/{task}"] = np.mean(returns)
        expected[f"rollout/episode_length/{task}"] = np.mean(lengths)
        if task == "left":
            expected[f"rollout/success/{task}"] = np.mean(successes)
        assert statistics.episodes[task] == len(returns)
    assert statistics.metrics() == pytest.approx(expected)


def test_a_task_without_a_finished_episode_has_no_metrics() -> None:
    metrics = EpisodeStatistics(["left", "right"], NUM_ENVS, [True, False]).metrics()
    assert metrics == {}


def _ending(reward: float) -> StepRow:
    """Return the only row of an episode."""
    yes, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    observation = np.zeros((1, 1, 1), np.float32)
    return StepRow(
        observation=observation,
        action=np.zeros((1, 1), np.int64),
        reward=np.full((1, 1), reward, np.float32),
        terminated=yes,
        truncated=no,
        next_observation=observation,
        valid=yes,
        extra={"success": yes},
    )


def test_means_cover_the_last_100_episodes() -> None:
    statistics = EpisodeStatistics(["left"], 1, [False])
    for reward in range(150):
        statistics.add(_ending(float(reward)))
    assert statistics.metrics()["rollout/episode_return/left"] == np.mean(np.arange(50, 150))
    assert statistics.episodes == {"left": 150}


def test_means_go_on_from_saved_ones() -> None:
    first, second = (EpisodeStatistics(["left"], 1, [False]) for _ in range(2))
    for reward in range(120):
        first.add(_ending(float(reward)))
    second.add(_ending(-1e6))
    second.load_state_dict(first.state_dict())
    assert second.metrics() == first.metrics()
    for statistics in (first, second):
        statistics.add(_ending(7.0))
    assert second.metrics() == first.metrics()
    second.load_state_dict({})
    assert second.metrics() == {}


def test_means_go_on_to_the_last_bit() -> None:
    """A sum from which old values were taken is not quite the sum of the others."""
    first, second = (EpisodeStatistics(["a"], 1, [False], window=3) for _ in range(2))
    for value in (0.1, 1e9, 0.7, 0.2, 0.3, 0.4):
        first._take("a", value, 1.0, False)
    second.load_state_dict(first.state_dict())
    assert second.metrics() == first.metrics()
    assert first.metrics()["rollout/episode_return/a"] != (0.2 + 0.3 + 0.4) / 3


def test_running_episodes_go_on_where_their_environments_do() -> None:
    first = _statistics(2)
    second = EpisodeStatistics(["left", "right"], NUM_ENVS, [True, False])
    second.set_running(first.running(), np.array([True, False]))
    assert second._length.tolist() == [first._length[0].tolist(), [0, 0]]
    assert second._return.tolist() == [first._return[0].tolist(), [0.0, 0.0]]
    assert first._length.any(1).all()
