"""What holds for every sharing."""

import io
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, assert_same_state, count_parameters
from helpers.sharing import (
    ANY_TORSO,
    LEFT,
    RIGHT,
    SHARINGS,
    SIZE,
    THREE,
    TORSO,
    UP,
    network_of,
    observations,
)
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lit_mtdqn.functional.parameters import update_target_
from lit_mtdqn.networks import ConvTorso, LayeredTorso, LinearHead, QNetwork, SharedTrunk, Torso
from lit_mtdqn.networks.rows import NamedRows
from lit_mtdqn.types import TaskInfo

EVERY = pytest.mark.parametrize("name", SHARINGS)
IMAGES = [
    TaskInfo(
        name=name,
        observation_shape=(3, 12, 12),
        num_actions=3,
        observation_kind="image",
        observation_high=255.0,
    )
    for name in ("left", "right", "up")
]
CONVOLUTIONS = partial(ConvTorso, channels=(4, 5), kernel_sizes=(4, 3), strides=(2, 1), hidden=6)


class Own(Torso):
    """A torso with `forward` and `num_features` and nothing else."""

    num_features = 6

    def __init__(self, tasks: Sequence[Any]) -> None:
        super().__init__()
        self.direct = nn.Linear(tasks[0].observation_shape[0], 6)

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        return (self.direct(observation).sin(),)


class Scaled(LayeredTorso):
    """A user's torso of layers."""

    def __init__(self, tasks: Sequence[Any]) -> None:
        size = tasks[0].observation_shape[0]
        super().__init__()
        self.first = nn.Sequential(nn.Linear(size, 7), nn.RMSNorm(7))
        self.second = nn.Sequential(nn.Linear(7, 6), nn.Softplus())
        self.layer_sizes, self.num_features = (7, 6), 6

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        hidden = self.first(observation)
        return hidden, self.second(hidden)

    def chain(self) -> list[list[nn.Module]]:
        return [list(self.first), list(self.second)]


@EVERY
@pytest.mark.parametrize("tasks", [[0, 1, 2], [2, 0], [1], [1, 1, 0, 2]], ids=str)
def test_groups_do_not_depend_on_one_another(name: str, tasks: list[int]) -> None:
    network = network_of(name)
    observation, task = observations(THREE, groups=len(tasks)), torch.tensor(tasks)
    together = network(observation, task)
    for group in range(len(tasks)):
        alone = network(observation[group : group + 1], task[group : group + 1])
        torch.testing.assert_close(together.output[group], alone.output[0])
        torch.testing.assert_close(together.features[group], alone.features[0])


@EVERY
def test_shapes_are_those_of_the_contract(name: str) -> None:
    network = network_of(name)
    prediction = network(observations(THREE), torch.arange(3))
    assert prediction.features.shape == (3, 5, 6)
    assert network.get_submodule("sharing").num_features == 6
    assert prediction.output.shape == (3, 5, 3)
    assert prediction.features is prediction.layers[-1]
    is_mixed = name in ("softmax", "gumbel", "attention", "moore", "per_layer")
    assert (prediction.router is not None) == is_mixed
    if is_mixed:
        assert prediction.router.shape == (3, 5, 3)
    copies = 3 if is_mixed else 1
    assert [layer.shape for layer in prediction.layers] == [(3, 5, copies * 8), (3, 5, 6)]


@EVERY
def test_the_order_of_tasks_never_matters(name: str) -> None:
    saved, loaded = network_of(name), network_of(name, [UP, LEFT, RIGHT], seed=1)
    loaded.load_state_dict(saved.state_dict())
    observation = observations(THREE)
    expected = saved.action_values(observation, torch.tensor([0, 1, 2]))
    found = loaded.action_values(observation, torch.tensor([1, 2, 0]))
    torch.testing.assert_close(found, expected)


@EVERY
def test_stacks_lie_in_the_order_of_names_so_that_an_optimisers_moments_fit(name: str) -> None:
    saved, loaded = network_of(name), network_of(name, [UP, LEFT, RIGHT], seed=1)
    loaded.load_state_dict(saved.state_dict())
    for ours, theirs in zip(loaded.parameters(), saved.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def _options(name: str, *tasks: TaskInfo) -> dict[str, Any]:
    order = [task.name for task in (RIGHT, UP, LEFT) if task in tasks]
    return {"order": order} if name == "lateral" else {}


# A mixture of columns is another one with one column more or less.
@pytest.mark.parametrize("name", [name for name in SHARINGS if name != "cross_stitch"])
def test_a_task_can_be_added_to_a_trained_network(name: str) -> None:
    saved = network_of(name, [RIGHT, UP], **_options(name, RIGHT, UP))
    loaded = network_of(name, seed=1)
    keys = loaded.load_state_dict(saved.state_dict(), strict=False)
    assert keys.unexpected_keys == []
    assert all("left" in key for key in keys.missing_keys)
    observation = observations([RIGHT, UP])
    expected = saved.action_values(observation, torch.tensor([0, 1]))
    torch.testing.assert_close(loaded.action_values(observation, torch.tensor([1, 2])), expected)


@pytest.mark.parametrize("name", [name for name in SHARINGS if name != "cross_stitch"])
def test_a_task_can_be_removed_from_a_trained_network(name: str) -> None:
    saved = network_of(name)
    loaded = network_of(name, [UP, RIGHT], seed=1, **_options(name, RIGHT, UP))
    keys = loaded.load_state_dict(saved.state_dict(), strict=False)
    assert keys.missing_keys == []
    assert all("left" in key for key in keys.unexpected_keys)
    observation = observations([RIGHT, UP])
    expected = saved.action_values(observation, torch.tensor([1, 2]))
    torch.testing.assert_close(loaded.action_values(observation, torch.tensor([1, 0])), expected)


def test_added_columns_keep_their_mixtures_of_one_another_by_name() -> None:
    saved = network_of("cross_stitch", [RIGHT, UP])
    loaded = network_of("cross_stitch", seed=1)
    loaded.load_state_dict(saved.state_dict(), strict=False)
    for key, entry in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], entry)
    assert "sharing.mixing.right.up.weight" in saved.state_dict()


@EVERY
def test_the_loss_of_one_task_does_not_reach_the_rows_of_others(name: str) -> None:
    network = network_of(name).train()
    network(observations(THREE)[1:2], torch.tensor([1])).output.square().sum().backward()
    reached = 0
    for owner in network.modules():
        if not isinstance(owner, NamedRows) or owner.is_shared:
            continue
        for parameter in owner.parameters(recurse=False):
            assert parameter.grad is not None
            for row, row_name in enumerate(owner.row_names):
                if row_name.split(".")[0] != "right":
                    assert (parameter.grad[row] == 0.0).all()
                else:
                    reached += int((parameter.grad[row] != 0.0).any())
    # The first column of lateral ones receives nothing, so its rows are the torso's and the head's.
    assert reached > 0 or name == "strict"


PER_TASK_ALONE = ("columns", "pull", "lateral")


@EVERY
def test_shared_parameters_are_those_that_the_losses_of_several_tasks_reach(name: str) -> None:
    network = network_of(name).train()
    observation = observations(THREE, rows=50)
    reached: dict[str, int] = {}
    rows: dict[str, Tensor] = {}
    for task in range(3):
        network.zero_grad()
        network(observation[task : task + 1], torch.tensor([task])).output.square().sum().backward()
        for key, parameter in network.named_parameters():
            gradient = torch.zeros(1) if parameter.grad is None else parameter.grad
            where = (gradient != 0.0).to(torch.int64)
            rows[key] = rows.get(key, torch.zeros_like(where)) + where
            reached[key] = int(rows[key].max())
    shared = {id(parameter) for parameter in network.shared_parameters()}
    names = {key for key, parameter in network.named_parameters() if id(parameter) in shared}
    several = {key for key, times in reached.items() if times > 1}
    if name == "gumbel":  # a draw may give every task an expert of its own
        assert several <= names == {key for key in names if "experts" in key}
    else:
        assert names == several
    assert (names == set()) == (name in PER_TASK_ALONE)


@EVERY
def test_a_saved_state_loads_without_running_code(name: str) -> None:
    network, file = network_of(name), io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    loaded = network_of(name, seed=1)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert_same_state(loaded, network)


@EVERY
def test_a_target_network_is_a_copy_that_follows(name: str) -> None:
    network = network_of(name)
    target = deepcopy(network).requires_grad_(False)
    observation, task = observations(THREE), torch.arange(3)
    before = target.action_values(observation, task)
    assert torch.equal(before, network.action_values(observation, task))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert torch.equal(target.action_values(observation, task), before)
    update_target_(target, network)
    assert torch.equal(
        target.action_values(observation, task), network.action_values(observation, task)
    )


@EVERY
def test_parameters_may_be_given(name: str) -> None:
    network, other = network_of(name).train(), network_of(name, seed=1).train()
    other.load_state_dict({**other.state_dict(), **_buffers(network)}, strict=False)
    _copy_noise(network, other)
    observation, task = observations(THREE), torch.arange(3)
    found = functional_call(network, dict(other.named_parameters()), (observation, task))
    torch.testing.assert_close(found.output, other(observation, task).output)


def _buffers(network: QNetwork) -> dict[str, Tensor]:
    names = {name for name, _ in network.named_buffers()}
    return {name: t for name, t in network.state_dict().items() if name in names}


def _copy_noise(source: QNetwork, to: QNetwork) -> None:
    for (name, buffer), (_, other) in zip(source.named_buffers(), to.named_buffers(), strict=True):
        if name.endswith("noise"):
            other.copy_(buffer)


@EVERY
def test_values_stay_float32_and_close_under_autocast(name: str) -> None:
    network = network_of(name)
    observation, task = observations(THREE), torch.arange(3)
    expected = network.action_values(observation, task)
    with torch.autocast("cpu", torch.bfloat16):
        values = network.action_values(observation, task)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", [name for name in SHARINGS if name not in ("concat", "strict")])
def test_images_are_shared_like_vectors(name: str) -> None:
    network = network_of(name, IMAGES, torso=CONVOLUTIONS)
    observation, task = observations(IMAGES), torch.tensor([2, 0, 1])
    together = network(observation, task)
    assert together.features.shape == (3, 5, 6)
    assert all(layer.shape[:2] == (3, 5) and layer.dim() == 3 for layer in together.layers)
    for group in range(3):
        alone = network(observation[group : group + 1], task[group : group + 1])
        torch.testing.assert_close(together.output[group], alone.output[0], rtol=1e-4, atol=1e-5)
    together.output.square().sum().backward()


@pytest.mark.parametrize("name", ANY_TORSO)
def test_a_torso_needs_a_forward_pass_and_the_size_of_its_features(name: str) -> None:
    network = network_of(name, torso=Own)
    output = network(observations(THREE), torch.arange(3)).output
    assert output.shape == (3, 5, 3)
    output.sum().backward()
    loaded = network_of(name, [UP, LEFT, RIGHT], seed=1, torso=Own)
    loaded.load_state_dict(network.state_dict())


@pytest.mark.parametrize("name", sorted(set(SHARINGS) - set(ANY_TORSO)))
def test_what_acts_between_layers_asks_for_a_torso_of_layers(name: str) -> None:
    with pytest.raises(TypeError, match=r"^`torso` must be a LayeredTorso for .+ Got Own\. Use"):
        network_of(name, torso=Own)


@EVERY
def test_a_users_torso_of_layers_can_be_shared_in_every_way(name: str) -> None:
    network = network_of(name, torso=Scaled)
    assert network(observations(THREE), torch.arange(3)).features.shape == (3, 5, 6)


@EVERY
def test_one_task_can_use_every_sharing(name: str) -> None:
    network = network_of(name, [LEFT], **_options(name, LEFT))
    values = network.action_values(torch.randn(1, 5, SIZE), torch.tensor([0]))
    assert values.shape == (1, 5, 3)


@EVERY
def test_tasks_that_share_a_head_keep_what_else_is_theirs(name: str) -> None:
    tasks = [TaskInfo(**{**task.as_dict(), "head": "both"}) for task in (RIGHT, UP)]
    network = network_of(name, tasks, **_options(name, RIGHT, UP))
    assert not any(key.startswith("sharing") and "both" in key for key in network.state_dict())
    head = "shared" if name == "strict" else "both"
    assert any(key.startswith(f"head.values.{head}.") for key in network.state_dict())


def test_a_shared_trunk_without_conditioning_is_a_network_without_sharing() -> None:
    torch.manual_seed(0)
    plain = QNetwork(THREE, TORSO)
    torch.manual_seed(0)
    shared = QNetwork(THREE, TORSO, sharing=SharedTrunk)
    assert_equal_tensors(
        {name.removeprefix("sharing."): t for name, t in shared.state_dict().items()},
        plain.state_dict(),
    )
    observation = observations(THREE)
    expected, found = (network(observation, torch.arange(3)) for network in (plain, shared))
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(found.output, expected.output)


def test_a_network_without_sharing_takes_the_draws_and_names_of_its_torso_and_head() -> None:
    torch.manual_seed(0)
    network = QNetwork(THREE, TORSO)
    torch.manual_seed(0)
    torso, head = TORSO(THREE), LinearHead(THREE, 6)
    expected = {f"torso.{name}": t for name, t in torso.state_dict().items()}
    expected |= {f"head.{name}": t for name, t in head.state_dict().items()}
    assert_equal_tensors(network.state_dict(), expected)


@EVERY
@pytest.mark.parametrize("tasks", [THREE, THREE[:1]], ids=["three", "one"])
def test_a_network_can_be_mapped_over_groups_with_parameters_of_their_own(
    name: str, tasks: list[TaskInfo]
) -> None:
    network = network_of(name, tasks, **_options(name, *tasks)).train()
    network.resample_noise()
    task = torch.tensor([2, 0, 2] if len(tasks) == 3 else [0, 0])
    observation = observations(tasks, groups=len(task))
    shared = {id(parameter) for parameter in network.shared_parameters()}
    copies = {
        key: torch.stack([p.detach() * scale for scale in range(1, len(task) + 1)])
        for key, p in network.named_parameters()
        if id(p) in shared
    }

    def one(own: dict[str, Tensor], rows: Tensor, number: Tensor) -> tuple[Tensor, Any]:
        found = functional_call(network, own, (rows.unsqueeze(0), number.unsqueeze(0)))
        return found.output[0], [layer[0] for layer in found.layers]

    outputs, layers = vmap(one)(copies, observation, task)
    for group in range(len(task)):
        own = {key: stack[group] for key, stack in copies.items()}
        arguments = (observation[group : group + 1], task[group : group + 1])
        expected = functional_call(network, own, arguments)
        torch.testing.assert_close(outputs[group], expected.output[0], rtol=1e-4, atol=1e-4)
        for found, layer in zip(layers, expected.layers, strict=True):
            torch.testing.assert_close(found[group], layer[0], rtol=1e-4, atol=1e-4)


@EVERY
def test_a_task_that_does_not_learn_uses_what_belongs_to_the_owner_of_its_head(name: str) -> None:
    held = replace(LEFT, name="held", head="up", learns=False)
    torch.manual_seed(0)
    network = network_of(name, [*THREE, held])
    for parameter in network.parameters():
        parameter.data.normal_()
    seen = torch.randn(1, 5, SIZE)
    own, its = (network(seen, torch.tensor([place])).output for place in (3, 2))
    torch.testing.assert_close(own, its)


@EVERY
def test_a_task_that_does_not_learn_makes_nothing_shared(name: str) -> None:
    held = replace(LEFT, name="held", head="up", learns=False)
    with_held, without = network_of(name, [*THREE, held]), network_of(name, THREE)
    counts = [sum(p.numel() for p in n.shared_parameters()) for n in (with_held, without)]
    assert counts[0] == counts[1]
    assert count_parameters(with_held) == count_parameters(without)
