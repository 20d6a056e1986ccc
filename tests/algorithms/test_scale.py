"""Scales in a whole run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.batches import random_batch
from helpers.runs import COUNTING, NETWORK, fit, small_data, small_model
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from lit_mtdqn import DQN, MultiTaskDQN
from lit_mtdqn.algorithms import ValueLearner
from lit_mtdqn.networks import C51Head
from lit_mtdqn.scaling import PopArt, ReturnNormaliser, ReturnScaling
from lit_mtdqn.types import Losses

SCALES: dict[str, Any] = {
    "returns": ReturnNormaliser,
    "errors": ReturnScaling,
    "targets": partial(PopArt, step_size=0.01),
}
EACH = pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())


@EACH
def test_a_checkpoint_brings_the_scale_back(scale: Any, tmp_path: Path) -> None:
    data = small_data()
    model = small_model(data, scale=scale)
    trainer = fit(data, model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = DQN.load_from_checkpoint(tmp_path / "a.ckpt")
    assert model.scale is not None
    assert loaded.scale is not None
    assert bool(model.scale.statistics.any())
    assert torch.equal(loaded.scale.statistics, model.scale.statistics)
    assert torch.equal(loaded.scale.spread, model.scale.spread)
    observation, task = torch.rand(1, 4, 3), torch.tensor([0])
    values = [one.action_values(observation, task) for one in (model, loaded)]
    assert torch.equal(*values)


def test_the_normaliser_sees_every_return_of_training() -> None:
    data = small_data()
    model = small_model(data, scale=partial(ReturnNormaliser, v_max=2.0))
    fit(data, model)
    assert isinstance(model.scale, ReturnNormaliser)
    sums = model.scale.sums()
    assert float(sums.steps) == data.clock.env_steps["count"]
    assert 0 < float(sums.returns) <= float(sums.steps)
    torch.testing.assert_close(2.0 * model.scale.spread.double(), model.scale.statistics[:, -1])


def test_values_are_reported_in_the_unit_of_rewards() -> None:
    data = small_data()
    model = DQN(data.task_infos, network=NETWORK, scale=ReturnNormaliser)
    assert model.scale is not None
    model.scale.spread.fill_(50.0)
    observation, task = torch.rand(1, 4, 3), torch.tensor([0])
    raw = model.network.action_values(observation, task)
    torch.testing.assert_close(model.action_values(observation, task), 50.0 * raw)


def test_without_a_scale_that_asks_for_them_no_returns_are_counted() -> None:
    data = small_data()
    fit(data, small_model(data, scale=PopArt))
    assert data.source is not None
    assert data.source.next_phase().returns == {}


def test_the_gradients_of_tasks_are_those_of_scaled_rewards() -> None:
    tasks = {"left": COUNTING, "right": COUNTING}
    data = small_data(tasks)
    model = MultiTaskDQN(data.task_infos, network=NETWORK, scale=ReturnNormaliser)
    fit(data, model)
    assert model.scale is not None
    batch = random_batch(model.tasks)
    model.scale.spread.fill_(8.0)
    scaled = model.task_gradients(batch).by_task
    model.scale.spread.fill_(1.0)
    plain = model.task_gradients(batch._replace(reward=batch.reward / 8.0)).by_task
    assert torch.equal(scaled, plain)
    assert not torch.equal(scaled, model.task_gradients(batch).by_task)


def test_errors_are_reported_in_the_unit_of_rewards() -> None:
    data = small_data()
    model = MultiTaskDQN(data.task_infos, network=NETWORK)
    fit(data, model)
    assert isinstance(model.scale, PopArt)
    batch, task = random_batch(model.tasks), torch.tensor([0])
    optimizer = model.optimizers()
    assert isinstance(optimizer, LightningOptimizer)
    raw_target = model.scale.restored(model.target(model.in_own_unit(batch)), task)
    chosen = model.action_values(batch.observation, task).gather(-1, batch.action.unsqueeze(-1))
    found = model.update(batch, optimizer).td_error
    torch.testing.assert_close(found, raw_target - chosen.squeeze(-1), rtol=1e-4, atol=1e-4)


def test_an_update_learns_from_its_targets_in_the_unit_that_they_have_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = small_data()
    model = MultiTaskDQN(data.task_infos, network=NETWORK, scale=partial(PopArt, step_size=1.0))
    seen: list[Tensor] = []
    losses = model.losses

    def watched(*arguments: Any) -> Losses:
        found = losses(*arguments)
        assert found.target is not None
        seen.append(found.target)
        return found

    monkeypatch.setattr(model, "losses", watched)
    fit(data, model)
    assert seen
    # With a step size of 1 the moments are those of each minibatch itself, the first included.
    for target in seen:
        assert float(target.mean()) == pytest.approx(0.0, abs=1e-3)
        assert float(target.std(correction=0)) == pytest.approx(1.0, abs=1e-3)


def test_errors_that_are_no_differences_of_values_have_no_unit() -> None:
    data = small_data()
    network = partial(NETWORK, head=partial(C51Head, v_min=-10.0, v_max=10.0))
    model = MultiTaskDQN(data.task_infos, network=network, scale=ReturnNormaliser)
    assert model.scale is not None
    model.scale.spread.fill_(50.0)
    errors = torch.rand(1, 4)
    assert torch.equal(model.raw_errors(errors, torch.tensor([0])), errors)


def test_a_learner_that_says_no_target_is_refused_where_the_scale_follows_targets() -> None:
    class Silent(DQN):
        target = ValueLearner.target

    tasks = small_data().task_infos
    with pytest.raises(ValueError, match=complaint("Silent.target")):
        Silent(tasks, network=NETWORK, scale=PopArt)
    Silent(tasks, network=NETWORK, scale=ReturnNormaliser)
