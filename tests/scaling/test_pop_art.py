"""Normalised targets, and values that normalisation does not change."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch
from helpers.heads import each
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lit_mtdqn.networks import (
    C51Head,
    DuelingHead,
    ImplicitQuantileHead,
    LinearHead,
    MLPTorso,
    QNetwork,
    QuantileHead,
    SharedTrunk,
)
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import TaskInfo

INFOS = [
    TaskInfo(name=name, observation_shape=(3,), num_actions=count)
    for name, count in (("two", 2), ("one", 4), ("three", 3))
]
HEADS: dict[str, Any] = {
    "linear": partial(LinearHead, init_scale=1.0),
    "dueling": partial(DuelingHead, init_scale=1.0),
    "hidden dueling": partial(DuelingHead, init_scale=1.0, hidden=5),
    "noisy": partial(LinearHead, init_scale=1.0, noisy_sigma=0.5),
    "quantile": partial(QuantileHead, num_quantiles=5, init_scale=1.0),
    "implicit": partial(ImplicitQuantileHead, num_cosines=8, init_scale=1.0),
}


def _network(head: Any, seed: int = 0) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(INFOS, partial(MLPTorso, hidden=[8]), head).eval()


def _update(scale: PopArt, target: Tensor, *networks: QNetwork, groups: Any = None) -> Tensor:
    task = torch.arange(len(target)) if groups is None else torch.tensor(groups)
    return scale.on_target(target, task, [n.head for n in networks], lambda tensor: tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each(HEADS)
def test_raw_values_of_both_networks_stay_as_they_were(head: Any, dtype: torch.dtype) -> None:
    scale = PopArt(INFOS, step_size=0.3).to(dtype)
    online, target = _network(head, 0).to(dtype), _network(head, 1).to(dtype)
    batch = random_batch(INFOS)
    # A dueling head's weights of the mean are float32 in both.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-7

    def raw() -> Tensor:
        predictions = [n(batch.observation.to(dtype), batch.task) for n in (online, target)]
        values = torch.stack([online.q_values(prediction) for prediction in predictions])
        restored = torch.stack([scale.restored(value, batch.task) for value in values])
        return restored.masked_fill(~online.action_mask[:, None], 0.0)

    before = raw()
    for step in range(4):
        drawn = (step + 1.0) * torch.randn(3, 6, dtype=dtype) + 20.0 * step
        _update(scale, drawn, online, target)
        assert not torch.allclose(scale.spread, torch.ones(3, dtype=dtype))
        # A change of rounding is one of the size of the numbers that are added.
        size = (scale.spread + scale.offset.abs()).max().clamp(min=1.0)
        torch.testing.assert_close(raw() / size, before / size, rtol=0, atol=tolerance)


def test_moments_of_the_first_updates_are_plain_averages_with_a_zero_before_them() -> None:
    scale = PopArt(INFOS[:1], step_size=1e-3)
    raw = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    network = QNetwork(INFOS[:1])
    for row in raw:
        unit = (row - scale.offset) / scale.spread
        _update(scale, unit[None], network)
    # Means 0, 2 and 6; mean squares 0, 5 and 37.
    assert_table(scale.offset, [8.0 / 3.0])
    assert_table(scale.spread, [(14.0 - 64.0 / 9.0) ** 0.5])


def test_later_updates_move_by_the_step_size() -> None:
    scale, network = PopArt(INFOS[:1], step_size=0.5), QNetwork(INFOS[:1])
    for mean in (0.0, 8.0, 8.0, 8.0):
        _update(scale, ((torch.tensor([[mean]]) - scale.offset) / scale.spread), network)
    # 0, then halfway to 8 three times.
    assert_table(scale.offset, [7.0])


def test_only_the_tasks_of_an_update_move() -> None:
    scale, network = PopArt(INFOS), _network(LinearHead)
    _update(scale, torch.tensor([[4.0, 6.0], [8.0, 10.0]]), network, groups=[2, 2])
    assert_table(scale.offset, [0.0, 0.0, 3.5])
    assert_table(scale.spread[:2], [1.0, 1.0])
    assert_table(scale.statistics[:, 2], [0.0, 0.0, 1.0])


def test_normalised_targets_have_mean_0_and_variance_1() -> None:
    scale, network = PopArt(INFOS, step_size=0.5), _network(LinearHead)
    raw = torch.randn(3, 2000) * torch.tensor([[1.0], [10.0], [1000.0]]) + 50.0
    for _ in range(50):
        unit = (raw - scale.offset[:, None]) / scale.spread[:, None]
        _update(scale, unit, network)
    unit = (raw - scale.offset[:, None]) / scale.spread[:, None]
    torch.testing.assert_close(unit.mean(1), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(unit.std(1), torch.ones(3), atol=1e-3, rtol=0)


def test_the_target_of_normalised_rewards_is_the_normalised_target() -> None:
    scale = PopArt(INFOS)
    scale.statistics[:] = torch.tensor([[3.0, 25.0, 1.0], [0.0, 1.0, 1.0], [-2.0, 8.0, 1.0]])
    scale.refresh()
    batch = random_batch(INFOS)
    next_unit = torch.randn_like(batch.reward)
    next_raw = scale.restored(next_unit, batch.task)
    raw = batch.reward + batch.discount * next_raw
    unit = scale.normalised(batch).reward + batch.discount * next_unit
    torch.testing.assert_close(scale.restored(unit, batch.task), raw)


def test_targets_that_do_not_vary_are_as_far_from_new_heads_as_others() -> None:
    scale, network = PopArt(INFOS[:1]), QNetwork(INFOS[:1])
    found = _update(scale, torch.full((1, 4), -5.0), network)
    assert_table(scale.offset, [-2.5])
    assert_table(scale.spread, [2.5])
    assert_table(found, [[-1.0, -1.0, -1.0, -1.0]])


def test_targets_of_0_leave_the_spread_above_0() -> None:
    scale, network = PopArt(INFOS[:1]), QNetwork(INFOS[:1])
    _update(scale, torch.zeros(1, 4), network)
    assert float(scale.spread) > 0.0


def test_padded_weights_stay_0() -> None:
    network = _network(LinearHead)
    _update(PopArt(INFOS), torch.randn(3, 5) + 3.0, network)
    assert isinstance(network.head, LinearHead)
    values = network.head.values
    weight, bias, row = values.weight, values.bias, values.heads.index("two")
    assert not weight[row, :, 2:].any()
    assert not bias[row, :, 2:].any()


def test_heads_on_a_fixed_support_are_refused() -> None:
    with pytest.raises(ValueError, match=complaint("head")):
        PopArt(INFOS).bind(_network(C51Head))


def test_tasks_that_share_a_head_without_naming_it_are_refused() -> None:
    network = QNetwork(INFOS, sharing=partial(SharedTrunk, conditioning="concat", one_head=True))
    with pytest.raises(ValueError, match=complaint("tasks")):
        PopArt(INFOS).bind(network)


def test_tasks_that_name_one_head_have_the_unit_of_all_their_targets() -> None:
    old = TaskInfo(name="old", observation_shape=(3,), num_actions=2, head="new")
    new = TaskInfo(name="new", observation_shape=(3,), num_actions=2)
    networks = [
        QNetwork(infos, partial(MLPTorso, hidden=[8]), partial(LinearHead, init_scale=1.0))
        for infos in ([old, new], [new])
    ]
    scales = [PopArt(infos, step_size=0.5) for infos in ([old, new], [new])]
    for scale, network in zip(scales, networks, strict=True):
        scale.bind(network)
    observation, task = torch.randn(2, 5, 3), torch.arange(2)
    before = scales[0].restored(networks[0](observation, task).output, task).detach()
    raw = torch.randn(4, 2, 6) * torch.tensor([[[1.0], [9.0]]]) + torch.tensor([[[4.0], [-2.0]]])
    for rows in raw:
        joined = rows.view(1, -1)
        _update(scales[0], (rows - scales[0].offset[0]) / scales[0].spread[0], networks[0])
        _update(scales[1], (joined - scales[1].offset) / scales[1].spread, networks[1])
    for name in ("offset", "spread"):
        ours, theirs = (getattr(scale, name) for scale in scales)
        torch.testing.assert_close(ours, theirs.expand(2))
    after = scales[0].restored(networks[0](observation, task).output, task).detach()
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    # Either task may go on alone.
    for name in ("old", "new"):
        scale = PopArt([TaskInfo(name=name, observation_shape=(3,), num_actions=2)])
        scale.set_extra_state(scales[0].get_extra_state())
        assert_table(scale.spread, scales[0].spread[:1])


@pytest.mark.parametrize("step_size", [0.0, 1.5])
def test_a_step_size_out_of_range_is_refused(step_size: float) -> None:
    with pytest.raises(ValueError, match=complaint("step_size")):
        PopArt(INFOS, step_size)


def test_targets_come_back_in_the_new_unit_with_the_raw_values_they_had() -> None:
    scale, network = PopArt(INFOS, step_size=0.5), _network(LinearHead)
    for step in range(4):
        unit = (step + 1.0) * torch.randn(3, 6) + 5.0
        task = torch.arange(3)
        raw = scale.restored(unit, task)
        found = _update(scale, unit, network)
        torch.testing.assert_close(scale.restored(found, task), raw, rtol=1e-5, atol=1e-4)


@given(st.floats(0.01, 0.5), st.floats(-1e4, 1e4))
def test_a_target_in_the_new_unit_is_bounded_however_unlike_the_others_it_is(
    step_size: float, outlier: float
) -> None:
    scale, network = PopArt(INFOS[:1], step_size=step_size), QNetwork(INFOS[:1])
    for _ in range(int(2 / step_size)):
        _update(scale, torch.zeros(1, 1), network)
    found = _update(scale, torch.full((1, 1), outlier), network)
    # van Hasselt et al. 2016, proposition 1; deviations are kept above 1e-4.
    assert abs(float(found)) <= ((1.0 - step_size) / step_size) ** 0.5 + 1e-2


def test_a_task_that_does_not_learn_has_the_unit_of_the_head_it_acts_with() -> None:
    held = TaskInfo(name="held", observation_shape=(3,), num_actions=4, head="one", learns=False)
    infos = [*INFOS, held]
    network = QNetwork(infos, partial(MLPTorso, hidden=[8]), partial(LinearHead, init_scale=1.0))
    scale = PopArt(infos, step_size=0.3)
    scale.bind(network)
    observation = torch.randn(2, 5, 3)
    task = torch.tensor([1, 3])

    def raw() -> Tensor:
        return scale.restored(network(observation, task).output, task).detach()

    before = raw()
    for _ in range(3):
        _update(scale, 3.0 * torch.randn(3, 6) + 7.0, network)
    torch.testing.assert_close(raw(), before, rtol=1e-4, atol=1e-4)
    assert scale.spread[3] == scale.spread[1] != 1.0
