from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from helpers.heads import ALL, each
from torch import Tensor

from lit_mtdqn import TaskInfo
from lit_mtdqn.functional.gradients import GroupParameters
from lit_mtdqn.networks import LinearHead, MinAtarTorso, MLPTorso, QNetwork, predict_by_group
from lit_mtdqn.types import Prediction

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
    TaskInfo(name="guest", observation_shape=(3,), num_actions=2, head="narrow"),
]
TASK = torch.tensor([2, 0, 1, 0])


def _network(head: Any, infos: Any = INFOS, **torso: Any) -> QNetwork:
    torch.manual_seed(0)
    return QNetwork(infos, partial(MLPTorso, hidden=[6, 5], **torso), head)


def _copies(network: QNetwork, groups: int) -> GroupParameters:
    shared = set(network.shared_parameters())
    return GroupParameters.of({n: p for n, p in network.named_parameters() if p in shared}, groups)


def _assert_same(found: Prediction, expected: Prediction) -> None:
    for name, left, right in zip(Prediction._fields, found, expected, strict=True):
        if right is None:
            assert left is None, name
            continue
        assert left is not None
        lefts = left if isinstance(left, tuple) else (left,)
        rights = right if isinstance(right, tuple) else (right,)
        for one, other in zip(lefts, rights, strict=True):
            assert one.shape == other.shape, name
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("drawn", [False, True])
@each(ALL)
def test_copies_change_no_prediction(head: Any, drawn: bool) -> None:
    network = _network(head).train()
    if drawn:
        network.resample_noise()
    observation = torch.randn(4, 7, 3)
    found = predict_by_group(network, _copies(network, 4), observation, TASK)
    _assert_same(found, network(observation, TASK))


def test_copies_change_no_prediction_of_images() -> None:
    infos = [
        TaskInfo(name=n, observation_shape=(2, 6, 6), num_actions=3, observation_kind="image")
        for n in ("a", "b")
    ]
    network = QNetwork(infos, partial(MinAtarTorso, channels=3, hidden=5), LinearHead)
    observation = torch.randint(0, 2, (2, 4, 2, 6, 6), dtype=torch.uint8)
    task = torch.tensor([1, 0])
    found = predict_by_group(network, _copies(network, 2), observation, task)
    _assert_same(found, network(observation, task))


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


@each(ALL)
def test_one_backward_pass_gives_the_gradient_of_every_group(head: Any) -> None:
    network = _network(head).train()
    network.resample_noise()
    observation = torch.randn(4, 7, 3)
    copies = _copies(network, 4)
    shared = [p for n, p in network.named_parameters() if n in copies]
    found = predict_by_group(network, copies, observation, TASK).output
    by_group = _gradients((found**2).sum(), list(copies.values()))
    expected = network(observation, TASK).output
    for group in range(4):
        oracle = _gradients((expected[group] ** 2).sum(), shared)
        for one, other in zip(by_group, oracle, strict=True):
            torch.testing.assert_close(one[group], other)


def test_all_but_the_layers_of_single_heads_is_shared() -> None:
    alone = [info for info in INFOS if info.name != "guest"]
    network = _network(ALL["hidden dueling implicit"], alone)
    names = {n for n, p in network.named_parameters() if p in set(network.shared_parameters())}
    assert {name.split(".")[0] for name in names} == {"torso", "head"}
    assert {name.split(".")[1] for name in names if name.startswith("head")} == {
        "value_stream",
        "advantage_stream",
        "embedding",
    }


def test_the_layers_of_a_head_that_tasks_have_in_common_are_shared() -> None:
    shared = set(_network(LinearHead).shared_parameters())
    network = _network(LinearHead)
    assert len(shared) == len(list(network.parameters()))
