from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch
from helpers.hand_backward import HandBackward, built, tasks
from helpers.standalone import Standalone
from torch import Tensor

from lit_mtdqn import Adam, MultiTaskDQN
from lit_mtdqn.balancing import IndependentSteps
from lit_mtdqn.networks import LinearHead, MLPTorso, QNetwork

NETWORK = partial(
    QNetwork, torso=partial(MLPTorso, hidden=[5]), head=partial(LinearHead, init_scale=1.0)
)
INFOS = tasks(3)


def _model(balancer: Any, optimizer: Any) -> MultiTaskDQN:
    torch.manual_seed(0)
    parts = {"balancer": balancer, "optimizer": optimizer, "scale": None}
    return MultiTaskDQN(INFOS, NETWORK, max_grad_norm=None, **parts)


def _shared(model: MultiTaskDQN) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.network.shared_parameters()])


def test_each_task_steps_by_the_state_of_an_optimiser_of_its_own() -> None:
    balancer, adam = partial(IndependentSteps, max_grad_norm=None), partial(Adam, lr=0.01)
    model = _model(balancer, adam)
    runner = Standalone(model)
    places = [torch.nn.Parameter(_shared(model)) for _ in INFOS]
    alone = [adam([place]) for place in places]
    for seed in range(6):
        batch = random_batch(INFOS, seed=seed)
        rows, before = model.task_gradients(batch).by_task, _shared(model)
        for place, row, optimizer in zip(places, rows, alone, strict=True):
            place.data.copy_(before)
            place.grad = row.clone()
            optimizer.step()
        runner.update(batch)
        expected = torch.stack([place.detach() for place in places]).mean(0)
        torch.testing.assert_close(_shared(model), expected)


def test_plain_gradient_descent_has_no_state_and_equals_equal_weights() -> None:
    sgd = partial(torch.optim.SGD, lr=0.1)
    balancer = partial(IndependentSteps, max_grad_norm=None)
    models = [_model(make, sgd) for make in (balancer, None)]
    runners = [Standalone(model) for model in models]
    for seed in range(5):
        for runner in runners:
            runner.update(random_batch(INFOS, seed=seed))
        pairs = zip(models[0].network.parameters(), models[1].network.parameters(), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other)


def test_a_task_of_small_gradients_steps_as_far_as_one_of_large_ones() -> None:
    learner = HandBackward([[1000.0, 0.0], [0.0, 0.1]])
    balancer = built(partial(IndependentSteps, max_grad_norm=None), 2)
    assert isinstance(balancer, IndependentSteps)
    balancer.steps = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.Adam([balancer.steps], lr=0.5)
    balancer.accumulate(learner.losses(), learner)
    optimizer.step()
    balancer.on_update_end(random_batch(INFOS), learner)
    assert_table(learner.moved, [-0.25, -0.25])
    assert not balancer.steps.any()


def test_the_gradient_of_each_task_is_clipped_by_itself() -> None:
    learner = HandBackward([[3.0, 4.0], [0.3, 0.4]], unbalanced=[0.0, 0.0])
    balancer = built(partial(IndependentSteps, max_grad_norm=1.0), 2)
    assert isinstance(balancer, IndependentSteps)
    balancer.steps = torch.nn.Parameter(torch.zeros(2, 2))
    balancer.accumulate(learner.losses(), learner)
    assert balancer.steps.grad is not None
    assert_table(balancer.steps.grad, [[0.6, 0.8], [0.3, 0.4]])


def test_what_is_added_is_part_of_every_step() -> None:
    learner = HandBackward([[3.0, 4.0], [0.3, 0.4]], unbalanced=[1.0, -1.0])
    balancer = built(partial(IndependentSteps, max_grad_norm=None), 2)
    assert isinstance(balancer, IndependentSteps)
    balancer.steps = torch.nn.Parameter(torch.zeros(2, 2))
    balancer.accumulate(learner.losses(), learner)
    assert balancer.steps.grad is not None
    assert_table(balancer.steps.grad, [[4.0, 3.0], [1.3, -0.6]])


def test_a_norm_that_is_not_above_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=complaint("IndependentSteps.max_grad_norm")):
        built(partial(IndependentSteps, max_grad_norm=0.0), 2)
