from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
import torch
from helpers.asserts import assert_no_gradient, assert_table, complaint
from torch import Tensor

from lit_mtdqn.networks import LinearHead, QNetwork, Torso
from lit_mtdqn.objectives import TD
from lit_mtdqn.types import Prediction, TaskInfo, Transition

Bootstrap = Literal["double", "max", "munchausen"]
BOOTSTRAPS = pytest.mark.parametrize("bootstrap", ["double", "max", "munchausen"])
STATES = 2
NARROW = TaskInfo(name="narrow", observation_shape=(STATES,), num_actions=2)
WIDE = TaskInfo(name="wide", observation_shape=(STATES,), num_actions=3)


class Transparent(Torso):
    """Its features are the observation, so that a linear head is a table of values."""

    num_features = STATES

    def __init__(self, tasks: Sequence[TaskInfo | Mapping[str, Any]]) -> None:
        super().__init__()

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        return (observation,)


def _network(tables: list[list[list[float]]]) -> QNetwork:
    """Return a network whose values are tables, [tasks, states, actions]."""
    network = QNetwork([NARROW, WIDE], Transparent, LinearHead)
    assert isinstance(network.head, LinearHead)
    with torch.no_grad():
        network.head.values.weight.copy_(torch.tensor(tables))
    return network


# In state 1 the online network prefers action 1 (narrow) or 0 (wide), the target network the other
# way round; the padded action 2 of the narrow task has the largest value of all.
ONLINE = [
    [[1.0, 2.0, 900.0], [3.0, 4.0, 900.0]],
    [[1.0, 2.0, 3.0], [9.0, 8.0, 7.0]],
]
TARGET = [
    [[0.0, 0.0, 900.0], [20.0, 10.0, 900.0]],
    [[0.0, 0.0, 0.0], [30.0, 40.0, 50.0]],
]


def _batch(discount: float = 0.5, **extra: Tensor) -> Transition:
    """Return one transition from state 0 to state 1 in each task."""
    state = torch.eye(STATES)
    return Transition(
        observation=state[0].expand(2, 1, STATES),
        action=torch.tensor([[0], [1]]),
        reward=torch.tensor([[1.0], [-1.0]]),
        discount=torch.full((2, 1), discount),
        next_observation=state[1].expand(2, 1, STATES),
        weight=torch.ones(2, 1),
        replay_index=torch.zeros(2, 1, dtype=torch.int64),
        task=torch.tensor([0, 1]),
        extra=extra,
    )


@pytest.mark.parametrize(
    ("bootstrap", "discount", "target"),
    [
        ("double", 0.0, [[1.0], [-1.0]]),
        ("double", 0.5, [[6.0], [14.0]]),
        ("double", 1.0, [[11.0], [29.0]]),
        ("max", 0.0, [[1.0], [-1.0]]),
        ("max", 0.5, [[11.0], [24.0]]),
        ("max", 1.0, [[21.0], [49.0]]),
    ],
)
def test_double_values_the_online_choice_and_max_the_target_networks_own(
    bootstrap: Bootstrap, discount: float, target: list[list[float]]
) -> None:
    found = TD(bootstrap).target(_batch(discount), _network(ONLINE), _network(TARGET))
    assert_table(found, target)


def test_targets_are_double_unless_chosen_otherwise() -> None:
    networks = _network(ONLINE), _network(TARGET)
    assert torch.equal(TD().target(_batch(), *networks), TD("double").target(_batch(), *networks))


@pytest.mark.parametrize(
    ("bootstrap", "target"),
    [
        ("double", [[11.0], [19.0]]),
        ("max", [[11.0], [19.0]]),
        # The target network makes all actions of state 0 equally likely: temperature * ln 1/2, 1/3.
        ("munchausen", [[11.0 - 0.018715], [19.0 - 0.029663]]),
    ],
)
def test_an_action_that_the_next_state_forbids_is_never_followed(
    bootstrap: Bootstrap, target: list[list[float]]
) -> None:
    allowed = torch.tensor([[[True, False, False]], [[False, True, False]]])
    batch = _batch(next_action_mask=allowed)
    assert_table(TD(bootstrap).target(batch, _network(ONLINE), _network(TARGET)), target)


@BOOTSTRAPS
def test_loss_and_error_compare_the_target_with_the_taken_action(bootstrap: Bootstrap) -> None:
    td = TD(bootstrap, alpha=0.0)
    loss, error, *_ = td(_batch(discount=0.0), _network(ONLINE), _network(TARGET))
    assert_table(error, [[1.0 - 1.0], [-1.0 - 2.0]])
    assert_table(loss, [[0.0], [4.5]])
    assert not error.requires_grad


@BOOTSTRAPS
def test_the_gradient_flows_through_the_taken_action_of_the_observation_alone(
    bootstrap: Bootstrap,
) -> None:
    online, target = _network(ONLINE), _network(TARGET)
    batch = _batch()
    batch = batch._replace(
        observation=batch.observation.clone().requires_grad_(),
        next_observation=batch.next_observation.clone().requires_grad_(),
    )
    loss, error, *_ = TD(bootstrap)(batch, online, target)
    torch.autograd.backward(loss.sum())
    assert isinstance(online.head, LinearHead)
    gradient = online.head.values.weight.grad
    assert gradient is not None
    expected = torch.zeros(2, STATES, 3)
    expected[0, 0, 0], expected[1, 0, 1] = -error[0, 0], -error[1, 0]
    assert_table(gradient, expected)
    assert batch.observation.grad is not None
    assert_no_gradient([batch.next_observation, *target.parameters()])


@pytest.mark.parametrize(
    ("bootstrap", "asked"),
    [("double", [True, False]), ("max", [True]), ("munchausen", [True])],
)
def test_the_online_network_sees_the_next_observation_only_for_double_and_without_gradient(
    bootstrap: Bootstrap, asked: list[bool]
) -> None:
    online, with_gradient = _network(ONLINE), []

    def predict(observation: Tensor, task: Tensor) -> Prediction:
        with_gradient.append(torch.is_grad_enabled())
        prediction: Prediction = online(observation, task)
        return prediction

    TD(bootstrap)(_batch(), predict, _network(TARGET))
    assert with_gradient == asked


@BOOTSTRAPS
def test_values_targets_and_losses_are_float32_under_autocast(bootstrap: Bootstrap) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, error, prediction, target, _ = TD(bootstrap)(
            _batch(), _network(ONLINE), _network(TARGET)
        )
    found = {tensor.dtype for tensor in (loss, error, prediction.output, target)}
    assert found == {torch.float32}


class Rounded(QNetwork):
    """Says all in 8 bits."""

    def forward(self, observation: Tensor, task: Tensor) -> Prediction:
        prediction = super().forward(observation, task)
        return prediction._replace(output=prediction.output.bfloat16())


@BOOTSTRAPS
def test_targets_and_losses_of_other_heads_are_float32(bootstrap: Bootstrap) -> None:
    online, target = _network(ONLINE), _network(TARGET)
    online.__class__ = target.__class__ = Rounded
    loss, error, *_ = TD(bootstrap)(_batch(), online, target)
    assert {loss.dtype, error.dtype} == {torch.float32}


def test_an_unknown_bootstrap_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("bootstrap")):
        TD("doubel")  # type: ignore[arg-type]
