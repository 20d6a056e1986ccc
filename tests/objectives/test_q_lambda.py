from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.batches import random_batch

from lit_mtdqn import TaskInfo
from lit_mtdqn.functional.distributional import project_hl_gauss
from lit_mtdqn.networks import C51Head, HLGaussHead, LinearHead, MLPTorso, QNetwork, QuantileHead
from lit_mtdqn.objectives import QLambda
from lit_mtdqn.types import Transition

TASKS = [TaskInfo(name="one", observation_shape=(3,), num_actions=2)]


def _fragments(weight: list[float]) -> Transition:
    length = len(weight)
    zeros = torch.zeros(length, 1, 1)
    return Transition(
        observation=torch.zeros(length, 1, 1, 3),
        action=zeros.long(),
        reward=torch.tensor([1.0, 2.0, 9.0, 4.0]).view(length, 1, 1),
        discount=torch.tensor([0.5, 0.0, 0.5, 0.5]).view(length, 1, 1),
        next_observation=torch.zeros(length, 1, 1, 3),
        weight=torch.tensor(weight).view(length, 1, 1),
        replay_index=zeros.long(),
        task=torch.tensor([0]),
        extra={},
    )


def test_returns_end_with_their_episode() -> None:
    # The second row is terminal, the third a reset row.
    fragments = _fragments([1.0, 1.0, 0.0, 1.0])
    value = torch.tensor([10.0, 20.0, 30.0, 40.0]).view(4, 1, 1)
    folded = QLambda(trace_decay=0.25).folded(fragments, value)
    # 1 + 0.5 (0.75 x 10 + 0.25 x 2); 2; 4 + 0.5 x 40.
    assert folded.reward.flatten()[[0, 1, 3]].tolist() == [5.0, 2.0, 24.0]
    assert not folded.discount.any()
    assert fragments.reward.flatten().tolist() == [1.0, 2.0, 9.0, 4.0]


@pytest.mark.parametrize("head", [LinearHead, C51Head, HLGaussHead, QuantileHead])
def test_every_head_learns_the_return_itself(head: Any) -> None:
    torch.manual_seed(0)
    network = QNetwork(TASKS, partial(MLPTorso, hidden=[4]), head)
    batch = random_batch(TASKS)
    batch = batch._replace(discount=torch.zeros_like(batch.discount))
    td = QLambda()(batch, network, network)
    assert torch.equal(td.target, QLambda().target(batch, network, network))
    if head is LinearHead:
        torch.testing.assert_close(td.target, batch.reward)
    elif head is QuantileHead:
        torch.testing.assert_close(td.target, batch.reward.unsqueeze(-1).expand_as(td.target))
    elif head is HLGaussHead:
        own: Any = network.head
        wanted = project_hl_gauss(batch.reward, own.edges, own.sigma)
        torch.testing.assert_close(td.target, wanted)
    else:
        own = network.head
        torch.testing.assert_close((td.target * own.support).sum(-1), batch.reward)
    assert not td.target.requires_grad
    assert td.loss.requires_grad


def test_no_next_state_is_asked_for() -> None:
    network = QNetwork(TASKS, partial(MLPTorso, hidden=[4]))
    batch = random_batch(TASKS)
    lost = batch._replace(
        discount=torch.zeros_like(batch.discount),
        next_observation=torch.full_like(batch.next_observation, torch.nan),
    )
    assert torch.isfinite(QLambda()(lost, network, network).loss).all()


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_an_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=complaint("trace_decay")):
        QLambda(decay)
