import pytest
import torch
from helpers.asserts import assert_same_state, assert_table
from torch import nn

from lit_mtdqn.functional.parameters import (
    clip_gradients_,
    freeze_,
    pull_to_mean_,
    split_by_weight_decay,
    update_target_,
)
from lit_mtdqn.networks import DuelingHead, MLPTorso, QNetwork
from lit_mtdqn.types import TaskInfo

TASKS = [
    TaskInfo(name="left", observation_shape=(4,), num_actions=2),
    TaskInfo(name="right", observation_shape=(4,), num_actions=3),
]


def _network() -> QNetwork:
    return QNetwork(
        TASKS,
        lambda tasks: MLPTorso(tasks, hidden=(8, 8), layer_norm=True),
        lambda tasks, size: DuelingHead(tasks, size, hidden=4),
    )


def test_a_hard_update_copies() -> None:
    target, online = _network(), _network()
    update_target_(target, online)
    assert_same_state(target, online)


def test_a_copy_does_not_follow_later_changes() -> None:
    target, online = nn.Linear(1, 1), nn.Linear(1, 1)
    update_target_(target, online)
    copied = target.weight.clone()
    nn.init.constant_(online.weight, 100.0)
    assert torch.equal(target.weight, copied)


def test_a_soft_update_goes_a_share_of_the_way() -> None:
    target, online = nn.Linear(2, 1), nn.Linear(2, 1)
    nn.init.constant_(target.weight, 4.0)
    nn.init.constant_(target.bias, -4.0)
    nn.init.constant_(online.weight, 8.0)
    nn.init.constant_(online.bias, 0.0)
    update_target_(target, online, polyak_tau=0.25)
    assert_table(target.weight, [[5.0, 5.0]])
    assert_table(target.bias, [-3.0])
    assert_table(online.weight, [[8.0, 8.0]])


@pytest.mark.parametrize("polyak_tau", [0.25, 1.0])
def test_buffers_are_copied_and_never_averaged(polyak_tau: float) -> None:
    target, online = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    online(torch.randn(8, 2))
    update_target_(target, online, polyak_tau)
    assert target.num_batches_tracked == 1
    assert target.running_mean is not None
    assert online.running_mean is not None
    assert torch.equal(target.running_mean, online.running_mean)


def test_a_frozen_target_can_be_updated_and_stays_frozen() -> None:
    target, online = freeze_(nn.Linear(1, 1)), nn.Linear(1, 1)
    update_target_(target, online, polyak_tau=0.5)
    assert not any(parameter.requires_grad for parameter in target.parameters())


def test_freezing_stops_gradients_and_training_mode() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    assert freeze_(module) is module
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not any(part.training for part in module.modules())


def test_the_gradient_norm_spans_all_parameters_that_have_a_gradient() -> None:
    first, second, idle = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    first.grad = torch.tensor([1.0, 2.0])
    second.grad = torch.tensor([2.0, 4.0])
    assert_table(clip_gradients_([first, second, idle], None), 5.0)
    assert_table(first.grad, [1.0, 2.0])


@pytest.mark.parametrize("max_norm", [0.5, 5.0, 100.0])
def test_clipping_agrees_with_pytorchs_own(max_norm: float) -> None:
    ours = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(5))]
    theirs = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(5))]
    for mine, other in zip(ours, theirs, strict=True):
        mine.grad = torch.randn_like(mine)
        other.grad = mine.grad.clone()
    norm = clip_gradients_(ours, max_norm)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs, max_norm))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_in_a_q_network_only_weight_matrices_decay() -> None:
    network = _network()
    decayed, spared = split_by_weight_decay(network)
    names = {parameter: name for name, parameter in network.named_parameters()}
    assert {names[parameter] for parameter in decayed} == {
        "torso.layers.0.weight",
        "torso.layers.3.weight",
        "head.value_stream.0.weight",
        "head.advantage_stream.0.weight",
        "head.value.weight",
        "head.advantage.weight",
    }
    assert {names[parameter] for parameter in spared} == {
        "torso.layers.0.bias",
        "torso.layers.1.weight",
        "torso.layers.1.bias",
        "torso.layers.3.bias",
        "torso.layers.4.weight",
        "torso.layers.4.bias",
        "head.value_stream.0.bias",
        "head.advantage_stream.0.bias",
        "head.value.bias",
        "head.advantage.bias",
    }


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm(4),
        nn.RMSNorm(4),
        nn.GroupNorm(2, 4),
        nn.BatchNorm2d(4),
        nn.InstanceNorm1d(4, affine=True),
        nn.Embedding(3, 4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_normalisations_and_embeddings_never_decay(module: nn.Module) -> None:
    decayed, spared = split_by_weight_decay(module)
    assert decayed == []
    assert len(spared) == len(list(module.parameters())) >= 1


def test_frozen_parameters_are_in_neither_part() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    freeze_(module[0])
    decayed, spared = split_by_weight_decay(module)
    assert decayed == []
    assert spared == list(module[1].parameters())


def _pairwise_penalty(stack: torch.Tensor, strength: float) -> torch.Tensor:
    distances = [
        (a - b).square().sum() for i, a in enumerate(stack) for j, b in enumerate(stack) if i != j
    ]
    return strength * torch.stack(distances).sum()


def test_the_pull_to_the_mean_is_a_step_along_the_gradient_of_all_pairwise_distances() -> None:
    strength, learning_rate, tasks = 0.3, 0.05, 4
    stack = nn.Parameter(torch.randn(tasks, 3, 2))
    (gradient,) = torch.autograd.grad(_pairwise_penalty(stack, strength), stack)
    expected = stack.detach() - learning_rate * gradient
    pull_to_mean_([stack], 4 * tasks * strength * learning_rate)
    torch.testing.assert_close(stack.detach(), expected)


def test_modules_may_name_parameters_that_do_not_decay() -> None:
    layer = nn.Linear(2, 2)
    layer.undecayed = ("weight",)  # type: ignore[assignment]
    assert split_by_weight_decay(layer) == ([], [layer.weight, layer.bias])


def test_parameters_without_gradients_have_the_norm_0() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    assert float(clip_gradients_(parameters, 1.0)) == 0.0
