from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.batches import random_batch
from helpers.heads import ALL, PLAIN, each
from torch import Tensor

from lit_mtdqn import MultiTaskDQN, TaskInfo
from lit_mtdqn.networks import ConvTorso, Head, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import TD, DeepSupervision
from lit_mtdqn.types import Prediction

INFOS = [
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
]
LINEAR = partial(LinearHead, init_scale=1.0)


def _network(head: Any = LINEAR, hidden: Any = (6, 5, 4)) -> QNetwork:
    torch.manual_seed(0)
    return QNetwork(INFOS, partial(MLPTorso, hidden=hidden), head)


def _terms(network: QNetwork, objective: DeepSupervision) -> dict[str, Tensor]:
    batch = random_batch(INFOS)
    return objective.forward(batch, TD()(batch, network, network), network)


def test_every_inner_layer_is_drawn_to_the_targets_of_the_last() -> None:
    network, batch = _network(), random_batch(INFOS)
    objective = DeepSupervision(INFOS, network, weights=[0.5, 0.25])
    td = TD()(batch, network, network)
    terms = objective(batch, td, network)
    assert list(terms) == ["deep_supervision_0", "deep_supervision_1"]
    layers = network.torso(batch.observation)
    for weight, layer, head, term in zip(
        (0.5, 0.25), layers, objective.heads, terms.values(), strict=False
    ):
        taken = head(layer, batch.task).gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
        expected = weight * 0.5 * (taken - td.target).square() * batch.weight
        torch.testing.assert_close(term, expected)


@each(ALL)
def test_heads_are_of_the_networks_kind(head: Any) -> None:
    network = _network(head).train()
    network.resample_noise()
    objective = DeepSupervision(INFOS, network)
    for inner in objective.heads:
        assert isinstance(inner, Head)
        assert type(inner) is type(network.head)
    terms = _terms(network, objective)
    assert all(term.shape == (2, 4) and term.requires_grad for term in terms.values())


@each(PLAIN)
def test_a_head_that_copies_the_last_one_has_its_loss(head: Any) -> None:
    network = _network(head, hidden=(5, 5))
    objective = DeepSupervision(INFOS, network, weights=1.0)
    objective.heads[0].load_state_dict(network.head.state_dict())
    batch = random_batch(INFOS)
    td = TD()(batch, network, network)
    first = Prediction(*td.prediction)._replace(layers=(td.prediction.features,) * 2)
    (term,) = objective(batch, td._replace(prediction=first), network).values()
    torch.testing.assert_close(term, td.loss * batch.weight)


def test_inner_heads_reach_the_layers_below_them_alone() -> None:
    network = _network()
    terms = _terms(network, DeepSupervision(INFOS, network))
    weights = [p for name, p in network.torso.named_parameters() if name.endswith("weight")]
    reached = torch.autograd.grad(terms["deep_supervision_0"].sum(), weights, allow_unused=True)
    assert [gradient is not None for gradient in reached] == [True, False, False]


def test_images_have_inner_layers_too() -> None:
    infos = [
        TaskInfo(
            name="pixels", observation_shape=(2, 6, 6), num_actions=3, observation_kind="image"
        )
    ]
    torso = partial(ConvTorso, channels=[3, 4], kernel_sizes=[3, 3], strides=[1, 1], hidden=5)
    network = QNetwork(infos, torso)
    objective = DeepSupervision(infos, network)
    batch = random_batch(infos)
    terms = objective(batch, TD()(batch, network, network), network)
    assert [term.shape for term in terms.values()] == [(1, 4), (1, 4)]


def test_its_heads_are_trained() -> None:
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=[6, 5]))
    model = MultiTaskDQN(INFOS, network, objectives=[DeepSupervision])
    trained = {id(p) for g in model.configure_optimizers().param_groups for p in g["params"]}
    heads = {id(p) for p in model.objectives.parameters()}
    assert heads
    assert heads < trained


@pytest.mark.parametrize("weights", [[0.1], [0.1, 0.2, 0.3], [0.1, -0.1], -0.5])
def test_weights_must_fit_the_inner_layers(weights: Any) -> None:
    with pytest.raises(ValueError, match=complaint("DeepSupervision.weights")):
        DeepSupervision(INFOS, _network(), weights=weights)


def test_a_torso_of_one_layer_has_no_inner_ones() -> None:
    with pytest.raises(ValueError, match=complaint("DeepSupervision.weights")):
        DeepSupervision(INFOS, _network(hidden=(5,)))
