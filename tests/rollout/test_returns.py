"""Sums over rewards, discounts and returns of training episodes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lit_mtdqn.rollout import ReturnTracker
from lit_mtdqn.types import ReturnSums, StepRow, TaskSpec

GAMMA = 0.5


def _tracker(**options: object) -> ReturnTracker:
    spec = TaskSpec(env="x", **{"gamma": GAMMA, **options})  # type: ignore[arg-type]
    return ReturnTracker([spec], num_envs=1)


def _step(reward: float, end: str = "", valid: bool = True) -> StepRow:
    def cell(value: object) -> np.ndarray:
        return np.array([[value]])

    observation = np.zeros((1, 1, 1), np.float32)
    return StepRow(
        observation,
        cell(0),
        cell(np.float32(reward)),
        cell(end == "terminated"),
        cell(end == "truncated"),
        observation,
        cell(valid),
    )


def _sums(tracker: ReturnTracker, *rows: StepRow) -> ReturnSums:
    for row in rows:
        tracker.add(row)
    (sums,) = tracker.take()
    return sums


def test_sums_of_a_terminated_episode_are_those_by_hand() -> None:
    sums = _sums(_tracker(), _step(1.0), _step(-4.0), _step(2.0, "terminated"))
    returns = [1.0 + 0.5 * -3.0, -4.0 + 0.5 * 2.0, 2.0]
    assert sums == ReturnSums(
        steps=3.0,
        reward=-1.0,
        reward_square=21.0,
        discount=1.0,
        discount_square=0.5,
        returns=3.0,
        return_square=sum(g * g for g in returns),
        largest_return=3.0,
    )


def test_a_truncated_episode_goes_on_at_its_mean_reward() -> None:
    sums = _sums(_tracker(), _step(1.0), _step(3.0, "truncated"))
    rest = 2.0 / (1.0 - GAMMA)
    last = 3.0 + GAMMA * rest
    assert sums.largest_return == last
    assert sums.return_square == pytest.approx(last**2 + (1.0 + GAMMA * last) ** 2)
    assert sums.discount == 2 * GAMMA


def test_without_discount_nothing_is_added_to_a_truncated_episode() -> None:
    sums = _sums(_tracker(gamma=1.0), _step(1.0), _step(3.0, "truncated"))
    assert sums.largest_return == 4.0


def test_an_episode_counts_when_it_ends_whatever_was_taken_before() -> None:
    tracker = _tracker()
    begun = _sums(tracker, _step(1.0), _step(1.0))
    assert (begun.steps, begun.returns) == (2.0, 0.0)
    ended = _sums(tracker, _step(1.0, "terminated"))
    assert (ended.steps, ended.returns, ended.largest_return) == (1.0, 3.0, 1.75)
    assert _sums(tracker) == ReturnSums()


def test_rows_that_are_no_transitions_do_not_count() -> None:
    rows = [_step(1.0), _step(0.0, valid=False), _step(1.0, "terminated")]
    sums = _sums(_tracker(), *rows, _step(0.0, valid=False), _step(7.0, "terminated"))
    assert (sums.steps, sums.returns, sums.largest_return) == (3.0, 3.0, 7.0)


def test_rewards_are_clipped_as_the_learner_sees_them() -> None:
    sums = _sums(_tracker(reward_clip=(-1.0, 1.0)), _step(50.0, "terminated"))
    assert sums.largest_return == 1.0


def test_environments_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    specs = [TaskSpec(env="x", gamma=gamma) for gamma in (0.9, 0.5)]
    tracker = ReturnTracker(specs, num_envs=3)
    shape = (2, 3)
    running: dict[tuple[int, int], list[float]] = {}
    found: list[list[float]] = [[], []]
    over = np.zeros(shape, bool)
    for _ in range(200):
        valid = ~over
        reward = np.where(valid, rng.normal(size=shape), 0.0).astype(np.float32)
        terminated = (rng.random(shape) < 0.1) & valid
        observation = np.zeros((*shape, 1), np.float32)
        none = np.zeros(shape, bool)
        tracker.add(
            StepRow(observation, np.zeros(shape, int), reward, terminated, none, observation, valid)
        )
        for place in zip(*np.nonzero(valid), strict=True):
            running.setdefault(place, []).append(float(reward[place]))
            if terminated[place]:
                rewards = running.pop(place)
                gamma = specs[place[0]].gamma
                found[place[0]] += [
                    sum(gamma**k * r for k, r in enumerate(rewards[start:]))
                    for start in range(len(rewards))
                ]
        over = terminated
    for sums, returns in zip(tracker.take(), found, strict=True):
        assert sums.returns == len(returns)
        assert math.isclose(sums.return_square, sum(g * g for g in returns), rel_tol=1e-6)
        assert math.isclose(sums.largest_return, max(map(abs, returns)), rel_tol=1e-6)
