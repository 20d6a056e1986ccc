from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import NETWORK, fit, small_data
from helpers.standalone import Standalone
from torch import Tensor
from torchjd import aggregation

from lit_mtdqn import Adam, MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.data import FixedShares
from lit_mtdqn.networks import LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import ImportanceWeights
from lit_mtdqn.objectives.importance import _Columns
from lit_mtdqn.types import Linear, Transition

NEW = TaskInfo(name="new", observation_shape=(3,), num_actions=2)
OLD = replace(NEW, name="old", head="new")
OTHER = TaskInfo(name="other", observation_shape=(3,), num_actions=4)
INFOS = [OLD, NEW, OTHER]
SMALL = partial(
    QNetwork, torso=partial(MLPTorso, hidden=[6]), head=partial(LinearHead, init_scale=1.0)
)


def _model(infos: Sequence[TaskInfo] = INFOS, **options: Any) -> MultiTaskDQN:
    torch.manual_seed(0)
    settled = {name: options.pop(name) for name in ("balancer",) if name in options}
    weights: Any = partial(ImportanceWeights, sources={"old": "new"}, **options)
    model = MultiTaskDQN(
        infos, SMALL, objectives=[weights], scale=None, optimizer=partial(Adam, lr=0.01), **settled
    )
    Standalone(model)
    return model


def _objective(model: MultiTaskDQN) -> ImportanceWeights:
    (objective,) = model.objectives
    assert isinstance(objective, ImportanceWeights)
    return objective


def _say(model: MultiTaskDQN, joint: float, given: float) -> None:
    """Let the classifiers say the same of all rows."""
    found = _objective(model).classifiers["old"]
    for name, value in (("joint", joint), ("given", given)):
        torch.nn.init.constant_(getattr(found, name)[-1].bias, value)


def test_in_the_beginning_every_row_counts_in_full() -> None:
    model, batch = _model(), random_batch(INFOS)
    found = model.losses(batch).auxiliary
    assert (found["importance_correction"] == 0.0).all()
    # Two undecided classifiers, each with a mean over either task.
    expected = 2.0 * (batch.weight[0].mean() + batch.weight[1].mean()) * torch.tensor(2.0).log()
    torch.testing.assert_close(found["domain_classifiers"].detach(), expected)


@pytest.mark.parametrize(
    ("options", "factor"),
    [({}, 4.0), ({"power": 0.5}, 2.0), ({"power": 0.0}, 1.0), ({"largest": 1.5}, 1.5)],
    ids=str,
)
def test_the_loss_of_a_source_is_multiplied_by_the_ratio_of_odds(
    options: dict[str, Any], factor: float
) -> None:
    model, batch = _model(**options), random_batch(INFOS)
    ratio = torch.tensor(4.0).log()
    _say(model, float(ratio) - 1.0, -1.0)
    losses = model.losses(batch)
    by_group, _ = model.group_losses(losses, batch)
    plain = (losses.td * batch.weight).mean(-1)
    torch.testing.assert_close(by_group, plain * torch.tensor([factor, 1.0, 1.0]))


def test_the_weights_are_no_way_to_lower_the_loss_and_classifiers_leave_the_network_alone() -> None:
    model, batch = _model(), random_batch(INFOS)
    _say(model, 1.0, 0.5)
    found = model.losses(batch).auxiliary
    own = list(_objective(model).parameters())
    theirs = list(model.network.parameters())
    correction = found["importance_correction"].sum()
    options: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
    assert all(g is None for g in torch.autograd.grad(correction, own, **options))
    assert any(g is not None for g in torch.autograd.grad(correction, theirs, **options))
    told = found["domain_classifiers"]
    assert all(g is None for g in torch.autograd.grad(told, theirs, **options))


CHANCES = {"old": 0.8, "new": 0.2}
# How often each task takes action 1, which says nothing of what it leads to.
HABITS = {"old": 0.9, "new": 0.4}


def _bandit(seed: int, rows: int = 256) -> Transition:
    """Return steps of two tasks in which action 1 wins with unlike chances, and action 0 never."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, rows)
    habit, chance = (torch.tensor([[c["old"]], [c["new"]]]) for c in (HABITS, CHANCES))
    action = (torch.rand(shape, generator=generator) < habit).long()
    won = (torch.rand(shape, generator=generator) < chance).float()
    ones = torch.ones(shape)
    return Transition(
        observation=torch.ones(*shape, 3),
        action=action,
        reward=won * action,
        discount=0.0 * ones,
        next_observation=torch.ones(*shape, 3),
        weight=ones,
        replay_index=torch.zeros(shape, dtype=torch.int64),
        task=torch.arange(2),
        extra={},
    )


def _learned(**options: Any) -> tuple[MultiTaskDQN, Tensor]:
    """Return a learner of both bandits, and what action 1 of the new one is worth to it."""
    model = _model([OLD, NEW], **options)
    learning = Standalone(model)
    for step in range(400):
        for group in learning.optimizer.param_groups:
            group["lr"] = 0.02 * (1.0 - step / 400)
        learning.update(_bandit(step))
    return model, model.action_values(torch.ones(1, 1, 3), torch.tensor([1]))[0, 0, 1]


def test_weights_become_the_ratio_of_what_follows_in_both_tasks_whatever_they_do() -> None:
    model, value = _learned()
    batch = _bandit(1_000)
    losses = model.losses(batch)
    correction = losses.auxiliary["importance_correction"][0] / losses.td[0]
    weight = 1.0 + correction.detach()
    won = (batch.reward[0] == 1.0, (batch.reward[0] == 0.0) & (batch.action[0] == 1))
    expected = CHANCES["new"] / CHANCES["old"], (1 - CHANCES["new"]) / (1 - CHANCES["old"])
    for rows, exact in zip((*won, batch.action[0] == 0), (*expected, 1.0), strict=True):
        assert float(weight[rows].mean()) == pytest.approx(exact, rel=0.1)
    # Without weights the old task drags the value along: 0.9 of its rows against 0.4.
    assert float(value) == pytest.approx(CHANCES["new"], abs=0.02)
    _, dragged = _learned(power=0.0)
    mixture = (0.9 * CHANCES["old"] + 0.4 * CHANCES["new"]) / 1.3
    assert float(dragged) == pytest.approx(mixture, abs=0.02)


def test_an_update_without_the_source_adds_nothing_and_keeps_the_graph() -> None:
    model = _model()
    for groups in ([1, 1], [2], [1, 2]):
        found = model.losses(random_batch(INFOS, groups=groups)).auxiliary
        assert (found["importance_correction"] == 0.0).all()
        loss = found["domain_classifiers"]
        gradients = torch.autograd.grad(loss, list(_objective(model).parameters()))
        assert all((gradient == 0.0).all() for gradient in gradients)


def test_an_update_without_the_target_weighs_rows_of_the_source_as_any_other_does() -> None:
    model, batch = _model(), random_batch(INFOS, groups=[0, 1])
    for module in _objective(model).modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight)
    model.losses(batch)
    alone = _only(batch, 0)
    expected = model.losses(_only(batch, 0, 1)).auxiliary["importance_correction"][0].detach()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = model.losses(alone).auxiliary
    assert_equal_tensors(model.state_dict(), before)
    torch.testing.assert_close(found["importance_correction"][0].detach(), expected)
    assert expected.abs().min() > 0.0
    assert found["domain_classifiers"] == 0.0


OF_ROWS = [name for name in Transition._fields if name not in ("extra", "observed")]


def _only(batch: Transition, *groups: int) -> Transition:
    return batch._replace(**{n: getattr(batch, n)[list(groups)] for n in OF_ROWS})


def test_columns_are_brought_to_the_moments_of_all_rows_so_far_and_constant_ones_to_nothing() -> (
    None
):
    def alone(tensor: Tensor) -> Tensor:
        return tensor

    columns = _Columns(3)
    rows = 5.0 + 3.0 * torch.randn(2, 4, 10, 3)
    rows[..., 2] = 7.0
    for each in rows:
        columns.learn(each, alone)
    found = columns(rows.flatten(0, 2))
    deviation, mean = torch.std_mean(found, 0, correction=0)
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(deviation, torch.tensor([1.0, 1.0, 0.0]))
    for _ in range(500):
        columns.learn(rows[0] + 1.0, alone)
    # What was long ago is forgotten.
    torch.testing.assert_close(columns.mean, rows[0].mean((0, 1)) + 1.0, atol=0.02, rtol=0)


def test_images_are_seen_flat() -> None:
    infos = [
        replace(info, observation_shape=(2, 4, 4), observation_kind="image") for info in (OLD, NEW)
    ]
    weights = ImportanceWeights(infos, SMALL(INFOS), {"old": "new"}, hidden=5)
    batch = random_batch([OLD, NEW])
    images = torch.randint(0, 2, (2, 4, 2, 4, 4), dtype=torch.uint8)
    rows = weights._rows(
        batch._replace(observation=images, next_observation=images), batch.task < 2
    )
    assert rows.shape == (2, 4, 32 + 2 + 2 + 32)


def test_it_is_balanced_with_its_task() -> None:
    gradients = []
    for balancer in (None, partial(Aggregated, aggregator=aggregation.Mean)):
        model, batch = _model(balancer=balancer), random_batch(INFOS)
        _say(model, 1.0, -0.5)
        losses = model.losses(batch, model.update_parameters(batch))
        model.accumulate_gradients(losses, batch)
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients)


COUNT = TaskSpec(env=VECTOR, score_range=(0.0, 10.0))


def test_a_run_learns_from_the_replay_of_another_less_and_less(tmp_path: Path) -> None:
    stored = small_data({"count": COUNT})
    fit(stored, MultiTaskDQN(stored.task_infos, NETWORK))
    stored.dump_replay(tmp_path)
    old = replace(COUNT, head="new", replay=str(tmp_path / "count"), evaluates=False)
    fading = Linear(start=1.0, end=0.0, duration=10)

    def make() -> tuple[Any, MultiTaskDQN]:
        sampler = FixedShares({"new": 1.0, "old": fading})
        data = small_data({"new": COUNT, "old": old}, sampler=sampler)
        weights: Any = partial(ImportanceWeights, sources={"old": "new"})
        return data, MultiTaskDQN(data.task_infos, NETWORK, objectives=[weights])

    data, model = make()
    trainer = fit(data, model, log_every_n_steps=1)
    assert data.clock.updates > 10
    assert data.clock.env_steps["old"] == 0
    assert "train/importance_correction" in trainer.callback_metrics
    assert "val/score/old" not in trainer.callback_metrics
    phase = data.source.next_phase()
    assert set(phase.transitions.task.flatten().tolist()) == {0}
    # Both have one unit, that of their head.
    assert model.scale is not None
    assert model.scale.spread[0] == model.scale.spread[1] != 1.0
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = MultiTaskDQN.load_from_checkpoint(tmp_path / "last.ckpt")
    assert _objective(loaded).sources == {"old": "new"}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"sources": {}}, "sources"),
        ({"sources": {"old": "nowhere"}}, "sources"),
        ({"sources": {"old": "other"}}, "sources"),
        ({"sources": {"old": "old"}}, "sources"),
        ({"power": 1.5}, "power"),
        ({"largest": 0.5}, "largest"),
        ({"hidden": 0}, "hidden"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(f"ImportanceWeights.{name}")):
        ImportanceWeights(INFOS, SMALL(INFOS), **{"sources": {"old": "new"}, **options})
