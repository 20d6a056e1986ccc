import math

import pytest
import torch
from helpers.asserts import assert_table, complaint, count_parameters
from torch import Tensor

from lit_mtdqn.networks import DuelingHead, Head, LinearHead
from lit_mtdqn.types import Prediction, TaskInfo

SIZE = 16
BOTH = torch.tensor([0, 1])
HEADS = pytest.mark.parametrize("kind", [LinearHead, DuelingHead])


def _task(name: str, num_actions: int, head: str = "") -> TaskInfo:
    return TaskInfo(name=name, observation_shape=(SIZE,), num_actions=num_actions, head=head)


TWO_AND_THREE = [_task("left", 2), _task("right", 3)]


def _prediction(output: Tensor) -> Prediction:
    return Prediction(torch.empty(0), (), output)


def _dueling(hidden: int = 0) -> DuelingHead:
    torch.manual_seed(0)
    return DuelingHead(TWO_AND_THREE, SIZE, hidden, init_scale=1.0)


@HEADS
def test_a_head_returns_a_value_per_row_and_padded_action(
    kind: type[LinearHead | DuelingHead],
) -> None:
    assert kind(TWO_AND_THREE, SIZE)(torch.randn(2, 5, SIZE), BOTH).shape == (2, 5, 3)


@HEADS
def test_initial_values_are_near_zero(kind: type[LinearHead | DuelingHead]) -> None:
    features = torch.rand(2, 50, SIZE) * 2.0 - 1.0
    values = kind(TWO_AND_THREE, SIZE)(features, BOTH).detach()
    # One layer: 16 products of |feature| <= 1 and |weight| <= 0.01 / sqrt(16). Dueling adds three.
    assert 0.0 < float(values.abs().max()) <= 3 * 0.01 * math.sqrt(SIZE)


@HEADS
def test_values_start_at_zero_without_initial_weights(kind: type[LinearHead | DuelingHead]) -> None:
    head = kind(TWO_AND_THREE, SIZE, init_scale=0.0)
    assert (head(torch.randn(2, 5, SIZE), BOTH) == 0.0).all()


@HEADS
def test_tasks_may_share_a_head_by_its_name(kind: type[LinearHead | DuelingHead]) -> None:
    tasks = [_task("left", 3, head="both"), _task("right", 3, head="both"), _task("up", 3)]
    head = kind(tasks, SIZE, init_scale=1.0)
    left, right, up = head(torch.ones(3, 1, SIZE), torch.arange(3)).unbind(0)
    assert torch.equal(left, right)
    assert not torch.equal(left, up)


@HEADS
def test_unknown_losses_and_deltas_are_refused(kind: type[LinearHead | DuelingHead]) -> None:
    with pytest.raises(ValueError, match=complaint("loss")):
        kind(TWO_AND_THREE, SIZE, loss="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=complaint("huber_delta")):
        kind(TWO_AND_THREE, SIZE, huber_delta=0.0)


def test_a_linear_head_has_a_layer_per_head() -> None:
    assert count_parameters(LinearHead(TWO_AND_THREE, SIZE)) == 2 * (SIZE * 3 + 3)


def test_the_streams_of_a_dueling_head_share_their_hidden_layers_between_tasks() -> None:
    streams = 2 * (SIZE * 8 + 8)
    rows = 2 * (8 * 1 + 1) + 2 * (8 * 3 + 3)
    assert count_parameters(DuelingHead(TWO_AND_THREE, SIZE, hidden=8)) == streams + rows


def test_a_negative_width_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("hidden")):
        DuelingHead(TWO_AND_THREE, SIZE, hidden=-1)


@pytest.mark.parametrize("hidden", [0, 8])
def test_the_mean_of_a_tasks_own_dueling_values_is_its_state_value(hidden: int) -> None:
    head, features = _dueling(hidden), torch.randn(2, 5, SIZE)
    q_values = head(features, BOTH)
    state_value = head.value(head.value_stream(features), BOTH).squeeze(-1)
    for task, num_actions in enumerate([2, 3]):
        mean = q_values[task, :, :num_actions].mean(-1)
        torch.testing.assert_close(mean, state_value[task], rtol=1e-4, atol=1e-6)


def test_the_advantage_of_a_padded_action_moves_no_other_value() -> None:
    head, features = _dueling(), torch.randn(2, 5, SIZE)
    before = head(features, BOTH).detach()
    left = head.advantage.heads.index("left")
    with torch.no_grad():
        head.advantage.bias[left, 0, 2] += 1000.0
    after = head(features, BOTH).detach()
    assert torch.equal(after[0, :, :2], before[0, :, :2])
    assert torch.equal(after[1], before[1])
    assert (after[0, :, 2] > before[0, :, 2] + 900.0).all()


def _unscaled(head: DuelingHead, features: Tensor) -> Tensor:
    value = head.value(head.value_stream(features), BOTH)
    advantage = head.advantage(head.advantage_stream(features), BOTH)
    centred = [a - a[:, :n].mean(-1, keepdim=True) for a, n in zip(advantage, (2, 3), strict=True)]
    values: Tensor = value + torch.stack(centred)
    return values


def _gradients(head: DuelingHead, features: Tensor, output: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1.0, 1.0, output.numel()).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), [features, *head.parameters()]))


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_dueling_head_scales_the_gradient_of_its_features_and_of_nothing_else(
    hidden: int,
) -> None:
    head, features = _dueling(hidden), torch.randn(2, 5, SIZE, requires_grad=True)
    scaled, *parameters = _gradients(head, features, head(features, BOTH))
    unscaled, *expected = _gradients(head, features, _unscaled(head, features))
    torch.testing.assert_close(scaled, unscaled / math.sqrt(2.0))
    torch.testing.assert_close(parameters, expected)


def test_scaling_the_gradient_leaves_the_values_as_they_are() -> None:
    head, features = _dueling(), torch.randn(2, 5, SIZE)
    assert torch.equal(head(features.clone().requires_grad_(), BOTH), head(features, BOTH))


def _scalar_heads() -> list[Head]:
    return [LinearHead(TWO_AND_THREE, SIZE), DuelingHead(TWO_AND_THREE, SIZE)]


@pytest.mark.parametrize("head", _scalar_heads(), ids=lambda head: type(head).__name__)
def test_the_output_of_a_scalar_head_is_its_values(head: Head) -> None:
    output = torch.randn(2, 5, 3)
    assert torch.equal(head.q_values(_prediction(output)), output)


@pytest.mark.parametrize("head", _scalar_heads(), ids=lambda head: type(head).__name__)
def test_the_target_follows_the_given_next_action(head: Head) -> None:
    output = torch.tensor([[[10.0, 20.0, 99.0]], [[1.0, 2.0, 3.0]]])
    target = head.target(
        reward=torch.tensor([[1.0], [2.0]]),
        discount=torch.tensor([[0.5], [0.0]]),
        next_prediction=_prediction(output),
        next_action=torch.tensor([[0], [2]]),
    )
    assert_table(target, [[6.0], [2.0]])


@pytest.mark.parametrize(("kind", "expected"), [("mse", [[0.125, 8.0]]), ("huber", [[0.125, 3.5]])])
def test_the_loss_compares_the_chosen_actions_value_with_the_target(
    kind: str, expected: list[list[float]]
) -> None:
    head = LinearHead(TWO_AND_THREE, SIZE, loss=kind)  # type: ignore[arg-type]
    output = torch.tensor([[[1.0, 9.0], [9.0, -2.0]]], requires_grad=True)
    target = torch.tensor([[1.5, 2.0]])
    loss, error = head.loss(_prediction(output), torch.tensor([[0, 1]]), target)
    assert_table(loss, expected)
    assert_table(error, [[0.5, 4.0]])
    assert not error.requires_grad


def test_the_gradient_of_the_loss_reaches_the_chosen_action_alone() -> None:
    output = torch.zeros(1, 1, 3, requires_grad=True)
    target = torch.ones(1, 1, requires_grad=True)
    head = LinearHead(TWO_AND_THREE, SIZE)
    loss, _ = head.loss(_prediction(output), torch.tensor([[1]]), target)
    pull, pull_on_target = torch.autograd.grad(loss.sum(), [output, target], allow_unused=True)
    assert_table(pull, [[[0.0, -1.0, 0.0]]])
    assert pull_on_target is None


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_losses_and_targets_are_float32_whatever_the_precision_of_the_output(kind: str) -> None:
    head = LinearHead(TWO_AND_THREE, SIZE, loss=kind)  # type: ignore[arg-type]
    output = torch.ones(1, 1, 3, dtype=torch.bfloat16)
    action, numbers = torch.tensor([[1]]), torch.ones(1, 1)
    target = head.target(numbers, numbers, _prediction(output), action)
    loss, error = head.loss(_prediction(output), action, target)
    assert {target.dtype, loss.dtype, error.dtype} == {torch.float32}
