"""Scales that follow from returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch

from lit_mtdqn.scaling import ReturnNormaliser, ReturnScaling
from lit_mtdqn.types import ReturnSums, TaskInfo


def _infos(*names: str) -> list[TaskInfo]:
    return [TaskInfo(name=name, observation_shape=(3,), num_actions=2) for name in names]


def _sums(*rows: ReturnSums) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _largest(*returns: float) -> torch.Tensor:
    return _sums(*(ReturnSums(returns=1.0, largest_return=size) for size in returns))


def test_the_largest_return_becomes_v_max() -> None:
    scale = ReturnNormaliser(_infos("small", "large"), v_max=10.0)
    scale.on_returns(_largest(5.0, 2000.0))
    assert_table(scale.spread, [0.5, 200.0])
    assert_table(scale.offset, [0.0, 0.0])


def test_the_largest_return_is_never_forgotten() -> None:
    scale = ReturnNormaliser(_infos("one"), v_max=1.0)
    for largest in (3.0, 8.0, 2.0, 0.0):
        scale.on_returns(_largest(largest))
    assert_table(scale.spread, [8.0])


def test_a_task_without_a_return_keeps_its_unit() -> None:
    scale = ReturnNormaliser(_infos("silent", "known"))
    scale.on_returns(_sums(ReturnSums(steps=4.0, reward=9.0), ReturnSums(largest_return=20.0)))
    assert_table(scale.spread, [1.0, 2.0])


def test_a_task_that_does_not_learn_has_the_unit_of_the_head_that_it_acts_with() -> None:
    learning, alone = _infos("learning", "alone")
    acting = replace(learning, name="acting", head="learning", learns=False)
    infos = [acting, learning, replace(alone, learns=False)]
    scale = ReturnNormaliser(infos, v_max=1.0)
    scale.on_returns(_sums(ReturnSums(), ReturnSums(returns=1.0, largest_return=8.0), ReturnSums()))
    assert_table(scale.spread, [8.0, 8.0, 1.0])


def test_a_task_may_have_the_unit_of_another() -> None:
    infos = [*_infos("other", "owner"), replace(*_infos("target"), learns=False)]
    scale = ReturnNormaliser(infos, v_max=1.0)
    scale.lend(2, 1)
    scale.on_returns(
        _sums(*(ReturnSums(returns=1.0, largest_return=n) for n in (2.0, 8.0)), ReturnSums())
    )
    assert_table(scale.spread, [2.0, 8.0, 8.0])


@pytest.mark.parametrize("kind", [ReturnNormaliser, ReturnScaling])
def test_a_task_without_returns_has_the_unit_of_the_one_whose_head_it_has(
    kind: type[ReturnNormaliser | ReturnScaling],
) -> None:
    old = TaskInfo(name="old", observation_shape=(3,), num_actions=2, head="new")
    scale = kind([old, *_infos("new", "other")])
    known = ReturnSums(steps=2.0, reward_square=8.0, returns=1.0, largest_return=30.0)
    louder = known._replace(reward_square=800.0, largest_return=300.0)
    scale.on_returns(_sums(ReturnSums(), known, louder))
    numbers = scale.spread if isinstance(scale, ReturnNormaliser) else scale.weight
    assert numbers[0] == numbers[1] != numbers[2]
    # Its own count once there are any; one head has one unit.
    scale.on_returns(_sums(louder, ReturnSums(), ReturnSums()))
    if isinstance(scale, ReturnNormaliser):
        assert_table(scale.spread, [30.0, 30.0, 30.0])
    else:
        assert scale.weight[0] == scale.weight[2] != scale.weight[1]


def test_returns_of_a_task_that_does_not_learn_are_not_looked_at() -> None:
    target = TaskInfo(name="b", observation_shape=(3,), num_actions=2, head="a", learns=False)
    scale = ReturnNormaliser([*_infos("a"), target], v_max=1.0)
    scale.on_returns(_largest(4.0, 100.0))
    assert_table(scale.spread, [4.0, 4.0])


def test_rewards_are_divided_and_values_restored_group_by_group() -> None:
    infos = _infos("small", "large")
    scale = ReturnNormaliser(infos, v_max=1.0)
    scale.on_returns(_largest(2.0, 50.0))
    batch = random_batch(infos, groups=[1, 0, 1])
    assert_table(
        scale.normalised(batch).reward, batch.reward / torch.tensor([[50.0], [2.0], [50.0]])
    )
    values = torch.ones(3, 4, 2)
    restored = scale.restored(values, batch.task)
    assert_table(restored[:, 0, 0], [50.0, 2.0, 50.0])
    assert restored.shape == values.shape


def test_sigma_is_that_of_the_paper() -> None:
    # Rewards 1, 3; discounts 0.9, 0 ; returns 2, 4: V[R] = 1, V[gamma] = 0.2025, E[G^2] = 10.
    scale = ReturnScaling(_infos("one"))
    scale.on_returns(
        _sums(
            ReturnSums(
                steps=2.0,
                reward=4.0,
                reward_square=10.0,
                discount=0.9,
                discount_square=0.81,
                returns=2.0,
                return_square=20.0,
                largest_return=4.0,
            )
        )
    )
    sigma = math.sqrt(1.0 + 0.2025 * 10.0)
    assert_table(scale.loss_weight(torch.tensor([0, 0])), [1.0 / sigma] * 2)
    assert_table(scale.metrics()["scale/one"], sigma)


def test_return_scaling_leaves_rewards_and_values_raw() -> None:
    infos = _infos("one", "two")
    scale = ReturnScaling(infos)
    scale.on_returns(_largest(30.0, 7.0))
    batch = random_batch(infos)
    assert scale.normalised(batch) is batch
    assert_table(scale.restored(torch.ones(2, 1, 1), batch.task).flatten(), [1.0, 1.0])


def test_sigma_of_a_task_whose_returns_do_not_vary_stays_finite() -> None:
    scale = ReturnScaling(_infos("one"))
    scale.on_returns(_sums(ReturnSums(steps=2.0, returns=2.0)))
    assert bool(scale.weight.isfinite().all())


def test_before_the_first_return_losses_are_not_scaled() -> None:
    scale = ReturnScaling(_infos("one"))
    scale.on_returns(_sums(ReturnSums(steps=2.0, reward=4.0, reward_square=100.0)))
    assert_table(scale.loss_weight(torch.tensor([0])), [1.0])


@pytest.mark.parametrize("kind", [ReturnNormaliser, ReturnScaling])
def test_sums_over_phases_are_as_those_of_one(
    kind: type[ReturnNormaliser | ReturnScaling],
) -> None:
    rows = [ReturnSums(*(float(n) for n in torch.rand(8))) for _ in range(3)]
    parts, whole = kind(_infos("one")), kind(_infos("one"))
    for row in rows:
        parts.on_returns(_sums(row))
    *sums, largest = zip(*rows, strict=True)
    whole.on_returns(_sums(ReturnSums._make([*map(sum, sums), max(largest)])))
    torch.testing.assert_close(parts.statistics, whole.statistics)
    assert_table(parts.spread, whole.spread)


def _loaded(names: Sequence[str], state: dict[str, torch.Tensor]) -> ReturnNormaliser:
    scale = ReturnNormaliser(_infos(*names))
    scale.load_state_dict(state)
    return scale


def test_statistics_follow_the_tasks_names() -> None:
    scale = ReturnNormaliser(_infos("small", "large"))
    scale.on_returns(_largest(5.0, 2000.0))
    other = _loaded(["fresh", "large", "small"], scale.state_dict())
    assert_table(other.spread, [1.0, 200.0, 0.5])


def test_a_size_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("v_max")):
        ReturnNormaliser(_infos("one"), v_max=0.0)
