import math

import pytest
import torch
from helpers.asserts import assert_table
from helpers.sharing import LEFT, RIGHT, SIZE

from lit_mtdqn.networks.sharing.routers import (
    AttentionRouter,
    GumbelRouter,
    LinearRouter,
    ObservationGate,
    SoftmaxRouter,
)
from lit_mtdqn.types import TaskInfo

TASKS = [RIGHT, LEFT]
BOTH = torch.tensor([0, 1])
OBSERVATION = torch.ones(2, 1, SIZE)
EXPERTS = torch.zeros(2, 2, 1, 4)


def test_the_gate_of_a_task_is_a_softmax_of_its_logits() -> None:
    router = SoftmaxRouter(TASKS, 2)
    with torch.no_grad():
        router.logits.gate.weight.zero_()
        router.logits.gate.bias[0, 0] = torch.tensor([1.0, 3.0]).log()  # of `left`
    weights = router(OBSERVATION, BOTH, EXPERTS).squeeze(-1)
    assert_table(weights, [[[0.5, 0.5]], [[0.25, 0.75]]])


def test_a_temperature_of_2_takes_the_square_root_of_odds() -> None:
    router = SoftmaxRouter(TASKS[:1], 2)
    router.temperature.fill_(2.0)
    with torch.no_grad():
        router.logits.gate.weight.zero_()
        router.logits.gate.bias[0, 0] = torch.tensor([1.0, 9.0]).log()
    assert_table(router(OBSERVATION[:1], BOTH[:1], EXPERTS).flatten(), [0.25, 0.75])


def test_gates_see_pixels_up_to_1() -> None:
    pixels = TaskInfo(
        name="left",
        observation_shape=(1, 1, 2),
        num_actions=2,
        observation_kind="image",
        observation_high=255.0,
    )
    gate = ObservationGate([pixels], 1)
    with torch.no_grad():
        gate.gate.weight.fill_(1.0)
    image = torch.tensor([255, 51], dtype=torch.uint8).view(1, 1, 1, 1, 2)
    assert_table(gate(image, torch.tensor([0])).flatten(), [1.2])


def test_without_noise_the_likeliest_expert_does_everything() -> None:
    router = GumbelRouter(TASKS, 3)
    with torch.no_grad():
        router.logits.weight.copy_(torch.tensor([[0.0, 1.0, 0.5], [0.2, 0.1, 0.0]]))
    weights = router(OBSERVATION, BOTH, EXPERTS).squeeze(-1)
    assert_table(weights, [[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])


def test_the_noise_of_a_task_may_change_its_choice_where_a_gradient_is_taken() -> None:
    router = GumbelRouter(TASKS, 2)
    router.resample_noise()
    with torch.no_grad():
        router.logits.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        router.noise.copy_(torch.tensor([[0.0, 2.0], [0.0, 0.5]]))  # of `left`, of `right`
        assert router(OBSERVATION, BOTH, EXPERTS).squeeze().tolist() == [[1.0, 0.0], [1.0, 0.0]]
    noisy = router(OBSERVATION, BOTH, EXPERTS).squeeze()
    assert noisy.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_draw_is_as_undecided_as_the_softmax_of_its_logits() -> None:
    router = GumbelRouter(TASKS, 2)
    with torch.no_grad():
        router.logits.weight.copy_(torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]]))
    entropy = router.entropy(router(OBSERVATION, BOTH, EXPERTS).squeeze(-1), BOTH)
    right = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert_table(entropy, [[right], [math.log(2.0)]])


def test_attention_is_a_softmax_of_scaled_products_of_query_and_keys() -> None:
    router = AttentionRouter(TASKS, num_features=4, num_heads=2, embedding_dim=4)
    with torch.no_grad():
        router.query.weight.zero_()
        # The first head asks for (log 3, 0), the second for nothing.
        router.query.bias.copy_(torch.tensor([math.log(3.0) * math.sqrt(2.0), 0.0, 0.0, 0.0]))
        router.key.weight.copy_(torch.eye(4))
    experts = torch.zeros(2, 1, 1, 4)
    experts[1, ..., 0] = 1.0
    weights = router(OBSERVATION[:1], BOTH[:1], experts)[0, 0]
    assert_table(weights, [[0.25, 0.5], [0.75, 0.5]])


@pytest.mark.parametrize("task", [0, 1])
def test_weights_of_a_linear_router_are_the_tasks_own(task: int) -> None:
    router = LinearRouter(TASKS, 2)
    with torch.no_grad():
        router.weights.weight.copy_(torch.tensor([[-1.0, 3.0], [0.5, 0.0]]))
    weights = router(OBSERVATION[:1], torch.tensor([task]), EXPERTS).flatten()
    assert weights.tolist() == [[0.5, 0.0], [-1.0, 3.0]][task]
