"""What a step for one task does to the others' losses, against really stepping."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_no_gradient
from helpers.batches import random_batch
from helpers.heads import ALL, each
from helpers.sharing import SHARINGS
from helpers.standalone import Standalone
from torch import Tensor, nn
from torchjd import aggregation

from lit_mtdqn import MultiTaskDQN, TaskInfo
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.networks import LinearHead, MLPTorso, QNetwork, Torso
from lit_mtdqn.objectives import TD, DeepSupervision
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import Transition

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2, weight=3.0),
    TaskInfo(name="third", observation_shape=(3,), num_actions=3),
]
LINEAR = partial(LinearHead, init_scale=1.0)
SHARE = 0.05


def _model(head: Any = LINEAR, infos: Any = INFOS, sharing: Any = None, **options: Any) -> Any:
    torch.manual_seed(0)
    torso = partial(MLPTorso, hidden=[6, 6])
    network = partial(QNetwork, torso=torso, head=head, sharing=sharing)
    model = MultiTaskDQN(infos, network, **{"scale": None, **options})
    Standalone(model)
    model.network.eval()
    return model


def _losses(model: Any, batch: Transition) -> Tensor:
    """Return each task's loss, from the losses of groups."""
    batch = model.in_own_unit(batch)
    by_group, _ = model.group_losses(model.losses(batch), batch)
    tasks = sorted(set(batch.task.tolist()))
    return torch.stack([by_group[batch.task == task].mean() for task in tasks])


def _stepped(model: Any, batch: Transition, share: float) -> Tensor:
    """Return the affinities by letting SGD step a copy of the model for each task."""
    before, rows = _losses(model, batch).detach(), []
    for place in range(len(before)):
        copy = deepcopy(model)
        shared: list[nn.Parameter] = copy.network.shared_parameters()
        copy.zero_grad()
        loss = _losses(copy, batch)[place]
        loss.backward()  # type: ignore[no-untyped-call]
        squared = sum(float(p.grad.square().sum()) for p in shared if p.grad is not None)
        torch.optim.SGD(shared, lr=share * loss.item() / squared).step()
        rows.append((before - _losses(copy, batch).detach()) / (share * before))
    return torch.stack(rows)


def _check(model: Any, groups: Sequence[int] = ()) -> None:
    batch = random_batch(INFOS, rows=8, groups=groups)
    count = len(set(batch.task.tolist()))
    found = model.task_affinity(batch, SHARE)
    assert found.shape == (count, count)
    # What seven digits of a loss leave of a twentieth of it.
    torch.testing.assert_close(found, _stepped(model, batch, SHARE), rtol=1e-3, atol=1e-4)


@each(ALL)
def test_affinity_is_what_stepping_would_do(head: Any) -> None:
    _check(_model(head))


@pytest.mark.parametrize("groups", [[2, 0, 2, 1, 0], [2, 0], [1]])
def test_tasks_may_fill_any_groups(groups: list[int]) -> None:
    _check(_model(), groups)


@pytest.mark.parametrize("name", sorted({*SHARINGS} - {"columns", "pull", "lateral"}))
def test_tasks_may_share_in_any_way(name: str) -> None:
    _check(_model(sharing=SHARINGS[name]))


def test_auxiliary_terms_count_with_their_task() -> None:
    supervised = partial(DeepSupervision, weights=[2.0])
    plain, further = _model(), _model(objectives=[supervised])
    _check(further)
    batch = random_batch(INFOS)
    assert not torch.allclose(plain.task_affinity(batch), further.task_affinity(batch))


@pytest.mark.parametrize("spread", [0.01, 50.0])
def test_affinity_is_that_of_scaled_rewards(spread: float) -> None:
    model = _model(scale=PopArt)
    model.scale.spread.copy_(torch.tensor([1.0, spread, 3.0]))
    model.scale.offset.fill_(0.5)
    _check(model)


def test_a_short_step_takes_away_what_its_slope_promises() -> None:
    batch = random_batch(INFOS, rows=64)
    # Without double selection, which may change by a step and the target with it.
    model = _model(objective=partial(TD, bootstrap="max"))
    own = model.task_affinity(batch, 1e-4).diagonal()
    torch.testing.assert_close(own, torch.ones(3), rtol=0.0, atol=0.01)


class Plane(Torso):
    """Two features that are sums of what is seen, through the identity."""

    num_features = 2

    def __init__(self, _: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2))

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        return (observation @ self.weight.T,)


def test_two_linear_tasks_help_by_the_angle_between_them() -> None:
    infos = [TaskInfo(name=n, observation_shape=(2,), num_actions=1) for n in ("one", "two")]
    torch.manual_seed(0)
    model = MultiTaskDQN(infos, partial(QNetwork, torso=Plane), scale=None)
    head = model.network.head
    assert isinstance(head, LinearHead)
    with torch.no_grad():
        # Both see (1, 0); the head of one reads (1, 0), that of the other (0.6, 0.8).
        head.values.weight.copy_(torch.tensor([[[1.0], [0.0]], [[0.6], [0.8]]]))
        head.values.bias.zero_()
    Standalone(model)
    batch = random_batch(infos, rows=1)
    seen = torch.tensor([1.0, 0.0]).expand(2, 1, 2)
    # Values are 1 and 0.6 and shall be -1 and 1.6: errors of 2 and -1, losses of 2 and 0.5.
    batch = batch._replace(
        observation=seen,
        reward=torch.tensor([[-1.0], [1.6]]),
        discount=torch.zeros(2, 1),
        weight=torch.ones(2, 1),
    )
    # A step for one moves its value by -share, and that of two by -0.6 share; a step for two by
    # share / 2, and that of one by 0.3 share. The loss of error e moved by d falls by -e d - d²/2.
    share = 0.1
    one_on_two = (1.0 * -0.06 - 0.06**2 / 2) / (share * 0.5)
    two_on_one = (-2.0 * 0.03 - 0.03**2 / 2) / (share * 2.0)
    one_on_one = (2.0 * 0.1 - 0.1**2 / 2) / (share * 2.0)
    two_on_two = (1.0 * 0.05 - 0.05**2 / 2) / (share * 0.5)
    expected = torch.tensor([[one_on_one, one_on_two], [two_on_one, two_on_two]])
    torch.testing.assert_close(model.task_affinity(batch, share), expected, rtol=1e-4, atol=1e-5)


def test_tasks_without_error_neither_step_nor_are_helped() -> None:
    model = _model()
    batch = random_batch(INFOS)
    chosen = model.network.action_values(batch.observation, batch.task)
    chosen = chosen.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    perfect = torch.tensor([[False], [True], [False]])
    batch = batch._replace(
        reward=torch.where(perfect, chosen, batch.reward),
        discount=torch.where(perfect, 0.0, batch.discount),
    )
    found = model.task_affinity(batch, SHARE)
    assert found[1].tolist() == found[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert found[0, 0] > 0.5


@pytest.mark.parametrize("balancer", [None, partial(Aggregated, aggregator=aggregation.PCGrad)])
@each({name: ALL[name] for name in ("linear", "noisy hidden dueling c51", "noisy implicit")})
def test_looking_ahead_leaves_no_trace(head: Any, balancer: Any) -> None:
    model = _model(head, balancer=balancer)
    model.network.train()
    model.resample_noise()
    batch = random_batch(INFOS)
    before, generator = deepcopy(model.state_dict()), torch.get_rng_state()
    losses = _losses(model, batch)
    model.task_affinity(batch)
    assert_no_gradient(model.parameters())
    pairs = zip(model.state_dict().values(), before.values(), strict=True)
    assert all(torch.equal(now, then) for now, then in pairs if isinstance(now, Tensor))
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(module.training for module in model.network.modules())
    assert torch.equal(_losses(model, batch), losses)
