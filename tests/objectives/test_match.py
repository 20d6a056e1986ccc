from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch
from torch import Tensor

from lit_mtdqn import TaskInfo
from lit_mtdqn.functional.distillation import match_loss
from lit_mtdqn.networks import LinearHead, MLPTorso, Prior, QNetwork
from lit_mtdqn.objectives import Match
from lit_mtdqn.types import Linear

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
]


def _network() -> QNetwork:
    torch.manual_seed(0)
    torso = partial(MLPTorso, hidden=[6])
    return QNetwork(INFOS, torso=torso, head=partial(LinearHead, init_scale=1.0))


def _teacher(unit: float = 1.0) -> Tensor:
    return unit * torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1))


def test_padded_actions_and_their_teachers_count_for_nothing() -> None:
    network, batch = _network(), random_batch(INFOS)
    prediction, teacher = network(batch.observation, batch.task), _teacher()
    match = Match(INFOS, network, "value_kl", temperature=0.5, relative=False)
    found = match.distance(batch, prediction, teacher)
    values = network.q_values(prediction)
    assert_table(found[0], match_loss("value_kl", values[0], teacher[0], 0.5))
    narrow = match_loss("value_kl", values[1, :, :2], teacher[1, :, :2], 0.5)
    assert_table(found[1], narrow)
    teacher[1, :, 2:] = 1e9
    assert_table(match.distance(batch, prediction, teacher)[1], narrow)


def test_actions_that_a_state_forbids_count_for_nothing() -> None:
    network, batch = _network(), random_batch(INFOS)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    batch = batch._replace(extra={"action_mask": mask})
    prediction, teacher = network(batch.observation, batch.task), _teacher()
    found = Match(INFOS, network, "mse").distance(batch, prediction, teacher)
    difference = network.q_values(prediction)[..., :2] - teacher[..., :2]
    assert_table(found, difference.square().mean(-1))


def test_a_relative_temperature_is_each_tasks_own() -> None:
    network, batch = _network(), random_batch(INFOS)
    prediction, teacher = network(batch.observation, batch.task), _teacher()
    match = Match(INFOS, network, "policy_kl", temperature=0.7)
    scaled = teacher * torch.tensor([1.0, 1000.0]).view(2, 1, 1)
    assert_table(
        match.distance(batch, prediction, scaled), match.distance(batch, prediction, teacher)
    )
    assert not torch.allclose(
        match.distance(batch, prediction, teacher),
        Match(INFOS, network, "policy_kl", 0.7, relative=False).distance(
            batch, prediction, teacher
        ),
    )


def test_the_temperature_may_follow_a_schedule_of_updates() -> None:
    network, batch = _network(), random_batch(INFOS)
    prediction, teacher = network(batch.observation, batch.task), _teacher()
    schedule = Linear(start=2.0, end=1.0, duration=10)
    moving = Match(INFOS, network, temperature=schedule)
    for updates, temperature in ((0, 2.0), (5, 1.5), (20, 1.0)):
        fixed = Match(INFOS, network, temperature=temperature)
        expected = fixed.distance(batch, prediction, teacher)
        assert_table(moving.distance(batch, prediction, teacher, updates), expected)


def test_agreement_is_told_by_row_group_and_of_the_tasks_own_actions() -> None:
    network, batch = _network(), random_batch(INFOS)
    prediction = network(batch.observation, batch.task)
    teacher = network.q_values(prediction).detach().clone()
    teacher[1, :, 2:] = 1e9
    match = Match(INFOS, network)
    assert_table(match.agreement(batch, prediction, teacher), [1.0, 1.0])
    assert_table(match.agreement(batch, prediction, -teacher), [0.0, 0.0])


def test_the_network_is_no_part_of_it() -> None:
    assert not list(Match(INFOS, _network()).parameters())


def test_a_network_with_a_prior_is_matched_by_what_it_acts_by_and_its_prior_is_let_be() -> None:
    infos = [replace(info, num_actions=3) for info in INFOS]
    torch.manual_seed(0)
    prior = partial(Prior, alpha=0.9, temperature=1.0)
    network = QNetwork(infos, torso=partial(MLPTorso, hidden=[6]), prior=prior)
    assert network.prior is not None
    torch.nn.init.normal_(network.prior.logits.weight)
    batch = random_batch(infos)
    prediction = network(batch.observation, batch.task)
    own = network.action_values(batch.observation, batch.task)
    for kind in ("mse", "value_kl"):
        match = Match(infos, network, kind)
        assert_table(match.distance(batch, prediction, own), torch.zeros(2, 4))
        assert_table(match.agreement(batch, prediction, own), [1.0, 1.0])
        loss = match.distance(batch, prediction, own.flip(-1)).sum()
        trained = list(network.parameters())
        found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
        of_prior = set(network.prior.parameters())
        assert {p in of_prior for p, g in zip(trained, found, strict=True) if g is None} == {True}


def test_it_says_whether_the_student_keeps_values() -> None:
    kinds: tuple[Any, ...] = ("policy_kl", "nll", "value_kl", "mse", "softened_mse")
    found = [Match(INFOS, _network(), kind).makes_values for kind in kinds]
    assert found == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"kind": "kl"}, "match.kind"),
        ({"temperature": 0.0}, "match.temperature"),
        ({"temperature": Linear(start=1.0, end=0.0, duration=10)}, "match.temperature"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        Match(INFOS, _network(), **options)
