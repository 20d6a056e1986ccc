from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch

from lit_mtdqn.networks import (
    DuelingHead,
    Head,
    ImplicitQuantileHead,
    LinearHead,
    MinAtarTorso,
    MLPTorso,
    QNetwork,
)
from lit_mtdqn.types import TaskInfo

TaskInfos = Sequence[TaskInfo | Mapping[str, Any]]
LEFT = TaskInfo(name="left", observation_shape=(4,), num_actions=2)
RIGHT = TaskInfo(name="right", observation_shape=(4,), num_actions=3)
UP = TaskInfo(name="up", observation_shape=(4,), num_actions=3)
LINEAR = partial(LinearHead, init_scale=1.0)
DUELING = partial(DuelingHead, hidden=4, init_scale=1.0)
HEADS = pytest.mark.parametrize("head", [LINEAR, DUELING], ids=["linear", "dueling"])


def _network(
    *tasks: TaskInfo,
    head: Callable[[TaskInfos, int], Head] = LINEAR,
    seed: int = 0,
) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(tasks, partial(MLPTorso, hidden=(8, 6)), head)


def _values(network: QNetwork, task: int) -> torch.Tensor:
    observation = torch.linspace(-1.0, 1.0, 20).view(1, 5, 4)
    return network.action_values(observation, torch.tensor([task]))


def test_a_prediction_has_a_group_and_a_row_axis() -> None:
    network = _network(LEFT, RIGHT)
    prediction = network(torch.randn(3, 5, 4), torch.tensor([0, 1, 1]))
    assert prediction.features.shape == (3, 5, 6)
    assert prediction.output.shape == (3, 5, 3)
    assert [tuple(layer.shape) for layer in prediction.layers] == [(3, 5, 8), (3, 5, 6)]
    assert prediction.features is prediction.layers[-1]


@HEADS
def test_groups_do_not_depend_on_one_another(head: Callable[[TaskInfos, int], Head]) -> None:
    network = _network(LEFT, RIGHT, head=head)
    observation, task = torch.randn(3, 5, 4), torch.tensor([1, 0, 1])
    together = network.action_values(observation, task)
    for group in range(3):
        alone = network.action_values(observation[group : group + 1], task[group : group + 1])
        torch.testing.assert_close(together[group], alone[0])


def test_images_pass_through_a_convolutional_torso() -> None:
    task = TaskInfo(
        name="left", observation_shape=(4, 10, 10), num_actions=6, observation_kind="image"
    )
    network = QNetwork([task], MinAtarTorso)
    pixels = torch.zeros(1, 5, 4, 10, 10, dtype=torch.uint8)
    assert network.action_values(pixels, torch.tensor([0])).shape == (1, 5, 6)


def test_tasks_may_be_plain_mappings() -> None:
    network = QNetwork([LEFT.as_dict(), RIGHT.as_dict()])
    assert network.action_mask.tolist() == [[True, True, False], [True, True, True]]


def test_the_allowed_actions_of_groups_are_those_of_their_tasks() -> None:
    allowed = _network(LEFT, RIGHT).allowed_actions(torch.tensor([1, 0]))
    assert allowed is not None
    assert allowed.tolist() == [[[True, True, True]], [[True, True, False]]]


def test_what_states_allow_comes_before_what_tasks_have() -> None:
    mask = torch.tensor([[[False, True, False]], [[True, False, False]]])
    assert _network(LEFT, RIGHT).allowed_actions(torch.tensor([1, 0]), mask) is mask


def test_tasks_of_equal_size_need_no_mask() -> None:
    assert _network(RIGHT, UP).allowed_actions(torch.tensor([1, 0])) is None


def test_values_for_acting_are_float32_and_carry_no_gradient() -> None:
    network = _network(LEFT).to(torch.bfloat16)
    values = network.action_values(torch.ones(1, 2, 4, dtype=torch.bfloat16), torch.tensor([0]))
    assert values.dtype == torch.float32
    assert not values.requires_grad


@HEADS
def test_reordering_tasks_does_not_swap_their_heads(
    head: Callable[[TaskInfos, int], Head],
) -> None:
    saved, loaded = _network(LEFT, RIGHT, head=head), _network(RIGHT, LEFT, head=head, seed=1)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(_values(loaded, 0), _values(saved, 1))
    assert torch.equal(_values(loaded, 1), _values(saved, 0))


@HEADS
def test_a_task_can_be_added_to_a_trained_network(head: Callable[[TaskInfos, int], Head]) -> None:
    saved, loaded = _network(RIGHT, head=head), _network(LEFT, RIGHT, UP, head=head, seed=1)
    keys = loaded.load_state_dict(saved.state_dict(), strict=False)
    assert torch.equal(_values(loaded, 1), _values(saved, 0))
    assert {key.split(".")[-2] for key in keys.missing_keys} == {"left", "up"}


@HEADS
def test_a_task_can_be_removed_from_a_trained_network(
    head: Callable[[TaskInfos, int], Head],
) -> None:
    saved, loaded = _network(LEFT, RIGHT, UP, head=head), _network(UP, LEFT, head=head, seed=1)
    keys = loaded.load_state_dict(saved.state_dict(), strict=False)
    assert keys.missing_keys == []
    assert torch.equal(_values(loaded, 0), _values(saved, 2))
    assert torch.equal(_values(loaded, 1), _values(saved, 0))


def test_a_state_of_another_width_is_an_error_and_not_a_silent_start_from_scratch() -> None:
    saved = QNetwork([LEFT], partial(MLPTorso, hidden=(8, 7)))
    with pytest.raises(RuntimeError, match=r"head\.values\.left\.weight"):
        _network(LEFT).load_state_dict(saved.state_dict(), strict=False)


@HEADS
def test_the_loss_of_one_task_trains_the_torso_and_its_own_head_alone(
    head: Callable[[TaskInfos, int], Head],
) -> None:
    network = _network(LEFT, RIGHT, head=head)
    network(torch.randn(1, 5, 4), torch.tensor([0])).output.square().sum().backward()
    rows = {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if name.split(".")[1] in ("values", "value", "advantage")
    }
    assert len(rows) in (2, 4)
    left, right = 0, 1
    for name, gradient in rows.items():
        assert gradient is not None, name
        assert (gradient[left] != 0.0).any(), name
        assert (gradient[right] == 0.0).all(), name
    for parameter in network.torso.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0.0).any()


def test_masks_follow_the_tasks_and_are_not_saved() -> None:
    assert not any("mask" in name for name in _network(LEFT, RIGHT, head=DuelingHead).state_dict())


NOISY = partial(LinearHead, noisy_sigma=0.5)
IMPLICIT = partial(ImplicitQuantileHead, init_scale=1.0)


@pytest.mark.parametrize(
    ("head", "has_noise", "explores"),
    [
        (LINEAR, False, False),
        (NOISY, True, True),
        (IMPLICIT, True, False),
        (partial(IMPLICIT, noisy_sigma=0.5), True, True),
    ],
    ids=["linear", "noisy", "implicit", "noisy implicit"],
)
def test_a_network_knows_whether_it_draws_noise_and_whether_that_explores(
    head: Callable[[TaskInfos, int], Head], has_noise: bool, explores: bool
) -> None:
    network = _network(LEFT, RIGHT, head=head)
    assert (network.has_noise, network.explores) == (has_noise, explores)


@pytest.mark.parametrize("head", [NOISY, IMPLICIT], ids=["noisy", "implicit"])
def test_noise_holds_from_a_draw_until_evaluation_mode(
    head: Callable[[TaskInfos, int], Head],
) -> None:
    network = _network(LEFT, RIGHT, head=head).train()
    mean = _values(network, 0)
    network.resample_noise(torch.Generator().manual_seed(1))
    first = _values(network, 0)
    assert torch.equal(_values(network, 0), first)
    assert not torch.equal(first, mean)
    network.resample_noise(torch.Generator().manual_seed(2))
    assert not torch.equal(_values(network, 0), first)
    network.eval()
    assert torch.equal(_values(network, 0), mean)


@pytest.mark.parametrize("head", [NOISY, IMPLICIT], ids=["noisy", "implicit"])
def test_a_copy_draws_noise_of_its_own(head: Callable[[TaskInfos, int], Head]) -> None:
    network = _network(LEFT, RIGHT, head=head)
    copy, mean = deepcopy(network), _values(network, 0)
    copy.resample_noise()
    assert not torch.equal(_values(copy, 0), mean)
    assert torch.equal(_values(network, 0), mean)


def test_exploring_values_are_noisy_anew_in_each_call_and_leave_no_noise() -> None:
    network = _network(LEFT, RIGHT, head=NOISY).eval()
    observation, task = torch.randn(2, 5, 4), torch.tensor([0, 1])
    mean = network.action_values(observation, task)
    first, second = (network.exploring_values(observation, task) for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first, mean)
    assert not first.requires_grad
    assert torch.equal(network.action_values(observation, task), mean)


@pytest.mark.parametrize("head", [LINEAR, IMPLICIT], ids=["linear", "implicit"])
def test_exploring_values_are_action_values_where_no_noise_explores(
    head: Callable[[TaskInfos, int], Head],
) -> None:
    network = _network(LEFT, RIGHT, head=head).eval()
    observation, task = torch.randn(2, 5, 4), torch.tensor([0, 1])
    state = torch.get_rng_state()
    exploring = network.exploring_values(observation, task)
    assert torch.equal(exploring, network.action_values(observation, task))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_prediction_carries_the_fractions_of_its_quantiles() -> None:
    network = _network(LEFT, RIGHT, head=IMPLICIT).train()
    observation, task = torch.randn(2, 5, 4), torch.tensor([0, 1])
    assert _network(LEFT)(observation[:1], task[:1]).taus is None
    prediction = network(observation, task)
    assert prediction.output.shape == (2, 5, 3, 32)
    assert prediction.taus is not None
    assert prediction.taus.shape == (1, 32)
    network.resample_noise()
    drawn = network(observation, task).taus
    assert drawn is not None
    assert drawn.shape == (5, 32)
