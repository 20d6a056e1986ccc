import math
from dataclasses import dataclass

import pytest
import torch
from helpers.asserts import assert_table
from torch import Tensor

from lit_mtdqn.algorithms.diagnostics import phase_metrics
from lit_mtdqn.networks import LinearHead, QNetwork
from lit_mtdqn.types import Losses, Prediction, TaskInfo, Transition

SIZE, ROWS = 3, 2


@dataclass
class FakeLearner:
    network: QNetwork
    tasks: list[TaskInfo]
    loss_name: str = "td_loss"
    predicts_values: bool = True

    def batch_metrics(self, batch: Transition, prediction: Prediction) -> dict[str, Tensor]:
        return {}

    def raw_values(self, values: Tensor, task: Tensor) -> Tensor:
        return values


def _learner() -> FakeLearner:
    """Return a learner with the values (1, 4, 9) in each state of the narrow and the wide task."""
    tasks = [
        TaskInfo(name="narrow", observation_shape=(SIZE,), num_actions=2),
        TaskInfo(name="wide", observation_shape=(SIZE,), num_actions=3),
    ]
    network = QNetwork(tasks, head=lambda infos, size: LinearHead(infos, size, init_scale=0.0))
    assert isinstance(network.head, LinearHead)
    with torch.no_grad():
        network.head.values.bias.copy_(torch.tensor([[1.0, 4.0, 9.0], [1.0, 4.0, 9.0]])[:, None])
    return FakeLearner(network, tasks)


def _batch(task: list[int], **extra: Tensor) -> Transition:
    shape = (len(task), ROWS)
    observation, numbers = torch.zeros(*shape, SIZE), torch.zeros(shape)
    indices = torch.zeros(shape, dtype=torch.int64)
    groups = torch.tensor(task)
    return Transition(
        observation, indices, numbers, numbers, observation, numbers, indices, groups, extra
    )


def _losses(td: list[list[float]], **metrics: Tensor) -> Losses:
    loss = torch.tensor(td, requires_grad=True)
    return Losses(loss, loss.detach(), {}, metrics)


def test_losses_are_means_over_the_phase_by_task_and_over_all() -> None:
    metrics = phase_metrics(
        _learner(),
        [_batch([0, 1]), _batch([1, 1])],
        [_losses([[1.0, 3.0], [5.0, 7.0]]), _losses([[8.0, 8.0], [4.0, 6.0]])],
        None,
    )
    assert_table(metrics["train/td_loss/narrow"], 2.0)
    assert_table(metrics["train/td_loss/wide"], (6.0 + 8.0 + 5.0) / 3)
    assert_table(metrics["train/td_loss"], (2.0 + 6.0 + 8.0 + 5.0) / 4)


def test_a_policy_has_an_entropy_over_its_own_actions_and_no_values() -> None:
    learner = _learner()
    learner.predicts_values = False
    assert isinstance(learner.network.head, LinearHead)
    with torch.no_grad():
        learner.network.head.values.bias.zero_()
    metrics = phase_metrics(learner, [_batch([0, 1])], [_losses([[0.0, 0.0], [0.0, 0.0]])], None)
    assert_table(metrics["train/policy_entropy/narrow"], math.log(2.0))
    assert_table(metrics["train/policy_entropy/wide"], math.log(3.0))
    assert not any("q_mean" in name or "action_gap" in name for name in metrics)


def test_values_and_gaps_know_no_padded_actions() -> None:
    metrics = phase_metrics(_learner(), [_batch([0, 1])], [_losses([[0.0, 0.0], [0.0, 0.0]])], None)
    assert_table(metrics["train/q_mean/narrow"], 4.0)
    assert_table(metrics["train/action_gap/narrow"], 3.0)
    assert_table(metrics["train/q_mean/wide"], 9.0)
    assert_table(metrics["train/action_gap/wide"], 5.0)


def test_values_and_gaps_know_no_actions_that_the_state_forbids() -> None:
    mask = torch.tensor([[[True, True, True], [True, False, False]]])
    metrics = phase_metrics(
        _learner(), [_batch([1], action_mask=mask)], [_losses([[0.0, 0.0]])], None
    )
    assert_table(metrics["train/q_mean/wide"], (9.0 + 1.0) / 2)
    assert_table(metrics["train/action_gap/wide"], (5.0 + 0.0) / 2)


def test_a_task_that_fills_two_groups_reports_the_mean_over_both() -> None:
    mask = torch.tensor([True, True, True]).expand(2, ROWS, 3).clone()
    mask[0, :, 1:] = False
    metrics = phase_metrics(
        _learner(), [_batch([1, 1], action_mask=mask)], [_losses([[0.0, 0.0]] * 2)], None
    )
    assert_table(metrics["train/q_mean/wide"], (1.0 + 9.0) / 2)
    assert_table(metrics["train/action_gap/wide"], (0.0 + 5.0) / 2)


def test_a_task_that_was_not_drawn_is_absent() -> None:
    metrics = phase_metrics(_learner(), [_batch([1])], [_losses([[0.0, 0.0]])], None)
    assert not any(name.endswith("/narrow") for name in metrics)


def test_values_come_from_the_last_minibatch_and_losses_from_all() -> None:
    losses = [_losses([[0.0, 0.0]])] * 2
    metrics = phase_metrics(_learner(), [_batch([0]), _batch([1])], losses, None)
    assert {name for name in metrics if name.endswith("/narrow")} == {"train/td_loss/narrow"}
    assert "train/q_mean/wide" in metrics


def test_metrics_of_the_last_losses_and_the_gradient_norm_are_passed_on() -> None:
    entropy = torch.tensor([1.0, 3.0])
    losses = [_losses([[0.0]], entropy=100 * entropy), _losses([[0.0]], entropy=entropy)]
    metrics = phase_metrics(_learner(), [_batch([1])] * 2, losses, torch.tensor(0.5))
    assert_table(metrics["train/entropy"], 2.0)
    assert_table(metrics["train/grad_norm"], 0.5)


@pytest.mark.parametrize("grad_norm", [None, torch.tensor(0.5)])
def test_metrics_are_scalars_without_gradient(grad_norm: Tensor | None) -> None:
    metrics = phase_metrics(_learner(), [_batch([0])], [_losses([[1.0, 2.0]])], grad_norm)
    assert ("train/grad_norm" in metrics) == (grad_norm is not None)
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())
