from functools import partial
from typing import Any, Literal

import pytest
import torch
from helpers.asserts import assert_equal_tensors, assert_no_gradient
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import fit, small_data, small_model
from helpers.tape import Tape
from torch import Tensor

from lit_mtdqn import DQN, TaskInfo, TaskSpec
from lit_mtdqn.callbacks import EpsilonDecay
from lit_mtdqn.functional.td import gather_actions, greedy_actions, regression_loss, td_target
from lit_mtdqn.networks import DuelingHead, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import TD
from lit_mtdqn.types import Transition

NARROW = TaskInfo(name="narrow", observation_shape=(3,), num_actions=2)
WIDE = TaskInfo(name="wide", observation_shape=(3,), num_actions=4, weight=3.0)
INFOS = [NARROW, WIDE]
LINEAR = partial(LinearHead, init_scale=1.0)
MASK = torch.tensor([[[True, True, False, False]], [[True, True, True, True]]])


def _model(head: Any = LINEAR, bootstrap: Literal["double", "max"] = "double") -> DQN:
    """Return a learner whose target network is another than its network."""
    torch.manual_seed(0)
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=[6]), head=head)
    model = DQN(INFOS, network, partial(TD, bootstrap=bootstrap))
    for parameter in model.target_network.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("bootstrap", ["double", "max"])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_losses_are_those_of_the_formula(
    bootstrap: Literal["double", "max"], loss: Literal["mse", "huber"]
) -> None:
    model = _model(partial(LINEAR, loss=loss, huber_delta=0.3), bootstrap)
    batch = random_batch(INFOS)
    chosen = gather_actions(model.network(batch.observation, batch.task).output, batch.action)
    online = model.network(batch.next_observation, batch.task).output
    following = model.target_network(batch.next_observation, batch.task).output
    best = greedy_actions(online if bootstrap == "double" else following, MASK)
    target = td_target(batch.reward, batch.discount, gather_actions(following, best))
    delta = 0.3 if loss == "huber" else None
    losses = model.losses(batch)
    torch.testing.assert_close(losses.td, regression_loss(chosen, target, huber_delta=delta))
    torch.testing.assert_close(losses.td_error, (target - chosen).detach())
    assert losses.td.shape == losses.td_error.shape == (2, 4)
    assert not losses.td_error.requires_grad
    assert (losses.auxiliary, losses.metrics) == ({}, {})


def test_a_task_may_fill_several_groups_or_none() -> None:
    model = _model()
    batch = random_batch(INFOS, groups=[1, 1, 1])
    together = model.losses(batch).td
    for group in range(3):
        own: dict[str, Any] = {
            name: field[group : group + 1] for name, field in _tensors(batch).items()
        }
        part = Transition(**own, extra={})
        torch.testing.assert_close(model.losses(part).td[0], together[group])


@pytest.mark.parametrize("given", [False, True], ids=["own parameters", "given parameters"])
def test_losses_change_nothing_but_their_result(given: bool) -> None:
    model = _model(partial(DuelingHead, hidden=4))
    model.network.train()
    batch = random_batch(INFOS)
    kept = {name: field.clone() for name, field in _tensors(batch).items()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    model.losses(batch, dict(model.network.named_parameters()) if given else None)
    assert_equal_tensors(model.state_dict(), state)
    assert_equal_tensors(_tensors(batch), kept)
    assert_no_gradient(model.parameters())
    assert model.network.training
    assert torch.equal(torch.get_rng_state(), generator)


def _tensors(batch: Transition) -> dict[str, Tensor]:
    return {name: field for name, field in batch._asdict().items() if isinstance(field, Tensor)}


def test_with_its_own_parameters_losses_are_the_same() -> None:
    model, batch = _model(), random_batch(INFOS)
    plain, given = model.losses(batch), model.losses(batch, dict(model.network.named_parameters()))
    assert torch.equal(plain.td, given.td)
    assert torch.equal(plain.td_error, given.td_error)


def test_with_other_parameters_losses_are_those_of_a_network_that_has_them() -> None:
    model, batch = _model(), random_batch(INFOS)
    others = {
        name: (parameter + 0.1).detach().requires_grad_()
        for name, parameter in model.network.named_parameters()
    }
    losses = model.losses(batch, others)
    assert not torch.equal(losses.td, model.losses(batch).td)
    losses.td.sum().backward()  # type: ignore[no-untyped-call]
    assert_no_gradient(model.parameters())
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            parameter.copy_(others[name])
    same = model.losses(batch)
    assert torch.equal(losses.td, same.td)
    same.td.sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.network.named_parameters():
        assert parameter.grad is not None
        gradient = others[name].grad
        assert gradient is not None
        torch.testing.assert_close(gradient, parameter.grad)


def test_gradients_reach_the_network_and_never_the_target_network() -> None:
    model = _model()
    model.losses(random_batch(INFOS)).td.sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.network.parameters())
    assert_no_gradient(model.target_network.parameters())


@pytest.mark.parametrize("bootstrap", ["double", "max"])
def test_padded_actions_are_never_chosen_from_acting_to_the_target(
    bootstrap: Literal["double", "max"],
) -> None:
    """One task of two actions beside one of four; padded actions have a value of 1000."""
    tapes = {"narrow": Tape(), "wide": Tape()}
    tasks = {
        name: TaskSpec(env=VECTOR, kwargs={"tape": tape, "num_actions": actions})
        for (name, tape), actions in zip(tapes.items(), (2, 4), strict=True)
    }
    data = small_data(tasks)
    model = small_model(data, objective=partial(TD, bootstrap=bootstrap))
    for network in (model.network, model.target_network):
        assert isinstance(network.head, LinearHead)
        with torch.no_grad():
            network.head.values.bias[0, ..., 2:] = 1_000.0
    trainer = fit(data, model, EpsilonDecay(start=0.3, end=0.3))
    for name, actions in (("narrow", {0, 1}), ("wide", {0, 1, 2, 3})):
        steps = tapes[name].named("step", num_envs=2)
        taken = {action for event in steps for action in event.details["actions"]}
        assert taken == actions
        evaluated = tapes[name].named("step", num_envs=3)
        assert {a for event in evaluated for a in event.details["actions"]} <= actions
    # A target that bootstrapped from a padded action would drive values and losses to hundreds.
    batch = random_batch(data.task_infos)
    assert float(model.losses(batch).td_error.abs().max()) < 20.0
    assert float(trainer.callback_metrics["val/q_bias/narrow"]) < 20.0
