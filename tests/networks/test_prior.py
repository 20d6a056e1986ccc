import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch

from lit_mtdqn import TaskInfo
from lit_mtdqn.functional.policies import softmax_policy
from lit_mtdqn.networks import Columns, LinearHead, MLPTorso, Prior, QNetwork
from lit_mtdqn.rollout import Boltzmann

INFOS = [TaskInfo(name=name, observation_shape=(3,), num_actions=3) for name in ("one", "other")]
TORSO = partial(MLPTorso, hidden=[6])


def network_with(infos: Any = INFOS, **prior: Any) -> QNetwork:
    torch.manual_seed(0)
    head = partial(LinearHead, init_scale=1.0)
    network = QNetwork(infos, TORSO, head, partial(Columns), partial(Prior, **prior))
    assert network.prior is not None
    with torch.no_grad():
        # Far from uniform.
        network.prior.logits.weight.normal_()
    return network


def _prior(**options: Any) -> Prior:
    prior = network_with(**options).prior
    assert prior is not None
    return prior


def test_the_policy_and_its_value_are_those_of_the_formula() -> None:
    # p = (1/2, 1/4, 1/4), T = 2: p^(1/2) exp(Q / 2) = (sqrt(1/2), 1/2 * 3, 1/2).
    logits = torch.tensor([[[0.5, 0.25, 0.25]]]).log()
    q_values = torch.tensor([[[0.0, 2.0 * math.log(3.0), 0.0]]])
    policy, rest = _prior(alpha=0.5, temperature=2.0).bootstrap(q_values, logits)
    total = math.sqrt(0.5) + 2.0
    chances = [math.sqrt(0.5) / total, 1.5 / total, 0.5 / total]
    assert_table(policy, [[chances]])
    value = 2.0 * math.log(total)
    assert_table(rest, [[value - chances[1] * 2.0 * math.log(3.0)]])


def test_the_rest_is_entropy_minus_what_the_prior_finds_unlikely() -> None:
    generator = torch.Generator().manual_seed(0)
    q_values, logits = torch.randn(2, 2, 5, 3, generator=generator)
    policy, rest = _prior(alpha=0.7, temperature=0.4).bootstrap(q_values, logits)
    log_prior = logits.log_softmax(-1)
    expected = 0.4 * (policy * (0.7 * log_prior - policy.log())).sum(-1)
    torch.testing.assert_close(rest, expected, rtol=1e-4, atol=1e-5)


def test_without_alpha_tasks_know_nothing_of_it() -> None:
    q_values, logits = torch.randn(2, 1, 5, 3, generator=torch.Generator().manual_seed(0))
    prior = _prior(alpha=0.0, temperature=0.3)
    assert torch.equal(prior.preferences(q_values, logits), q_values)
    policy, rest = prior.bootstrap(q_values, 5.0 * logits)
    torch.testing.assert_close(policy, softmax_policy(q_values, 0.3))
    entropy = torch.special.entr(policy).sum(-1)
    torch.testing.assert_close(rest, 0.3 * entropy, rtol=1e-4, atol=1e-5)


def test_at_high_temperatures_tasks_act_as_the_prior_does() -> None:
    q_values, logits = torch.randn(2, 1, 5, 3, generator=torch.Generator().manual_seed(0))
    policy, _ = _prior(alpha=1.0, temperature=1e5).bootstrap(q_values, logits)
    torch.testing.assert_close(policy, logits.softmax(-1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_forbidden_actions_are_in_no_policy_and_count_for_nothing(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    q_values, logits = torch.randn(2, 1, 5, 3, generator=generator)
    mask = torch.tensor([True, True, False]).expand(1, 5, 3)
    prior = _prior(alpha=alpha, temperature=0.5)
    policy, rest = prior.bootstrap(q_values, logits, mask)
    expected = prior.bootstrap(q_values[..., :2], logits[..., :2])
    torch.testing.assert_close(policy[..., :2], expected[0])
    assert (policy[..., 2] == 0.0).all()
    torch.testing.assert_close(rest, expected[1])
    q_values[..., 2] = logits[..., 2] = 1e6
    torch.testing.assert_close(prior.bootstrap(q_values, logits, mask)[1], rest)


def test_boltzmann_at_its_temperature_draws_from_the_tasks_policies() -> None:
    network = network_with(alpha=0.6, temperature=0.7)
    observation, task = torch.randn(2, 1, 3), torch.tensor([0, 1])
    prediction = network(observation, task)
    assert network.prior is not None
    assert prediction.prior is not None
    policy, _ = network.prior.bootstrap(network.q_values(prediction), prediction.prior)
    values = network.action_values(observation, task).expand(-1, 20_000, -1).numpy()
    draws = np.random.default_rng(0).random((2, 2, 20_000))
    mask, temperature = np.ones((2, 1, 3), bool), np.full(2, 0.7)
    actions = Boltzmann.draw(values, mask, temperature, draws)
    shares = np.stack([np.bincount(row, minlength=3) / 20_000 for row in actions])
    np.testing.assert_allclose(shares, policy[:, 0].detach().numpy(), atol=0.015)


def test_the_prior_learns_from_the_tasks_and_they_not_from_it() -> None:
    network, batch = network_with(alpha=0.5, temperature=0.5), random_batch(INFOS)
    assert network.prior is not None
    prediction = network(batch.observation, batch.task)
    assert prediction.prior is not None
    distance = network.auxiliary(prediction, batch.task)["prior"]
    q_values = network.q_values(prediction)
    policy, _ = network.prior.bootstrap(q_values, prediction.prior)
    expected = (policy * (policy.log() - prediction.prior.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-5)
    torch.autograd.backward(distance.sum())
    reached = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    names = {name for name, _ in network.named_parameters() if name.startswith("prior.")}
    assert set(reached) == names
    # The gradient of a cross-entropy in its logits.
    expected = (prediction.prior.softmax(-1) - policy).sum((0, 1)).detach()
    torch.testing.assert_close(reached["prior.logits.bias"].flatten(), expected, rtol=0, atol=1e-5)


def test_all_tasks_share_it_even_where_they_share_nothing_else() -> None:
    network = network_with()
    shared = {id(parameter) for parameter in network.shared_parameters()}
    named = dict(network.named_parameters())
    assert {name for name, p in named.items() if id(p) in shared} == {
        name for name in named if name.startswith("prior.")
    }
    assert {"prior.logits.prior.weight", "prior.torso.layers.0.weight"} <= set(network.state_dict())


def test_tasks_of_unlike_actions_are_refused() -> None:
    other = TaskInfo(name="third", observation_shape=(3,), num_actions=2)
    with pytest.raises(ValueError, match=complaint("tasks")):
        network_with([*INFOS, other])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"alpha": -0.1}, "prior.alpha"),
        ({"alpha": 1.1}, "prior.alpha"),
        ({"temperature": 0.0}, "prior.temperature"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        network_with(**options)
