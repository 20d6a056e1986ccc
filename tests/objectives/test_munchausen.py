"""The soft bootstrap with a bonus for likely actions."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asserts import complaint
from helpers.batches import random_batch
from helpers.heads import HEADS, PLAIN, each
from helpers.tabular import Floats, random_mdp
from torch import Tensor

from lit_mtdqn.functional.policies import softmax_policy
from lit_mtdqn.networks import LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import TD
from lit_mtdqn.types import Prediction, TaskInfo, Transition

NARROW = TaskInfo(name="narrow", observation_shape=(3,), num_actions=2)
WIDE = TaskInfo(name="wide", observation_shape=(3,), num_actions=4)
INFOS = [NARROW, WIDE]


def _network(head: Any = LinearHead, seed: int = 0) -> QNetwork:
    torch.manual_seed(seed)
    head = partial(head, init_scale=1.0)
    return QNetwork(INFOS, partial(MLPTorso, hidden=(8,)), head)


def never_asked(observation: Tensor, task: Tensor) -> Prediction:
    raise AssertionError("the target needs the target network alone")


def _target(td: TD, batch: Transition, network: QNetwork) -> Tensor:
    return td.target(batch, never_asked, network)


def _by_loops(
    now: list[float],
    following: list[float],
    action: int,
    reward: float,
    discount: float,
    alpha: float,
    temperature: float,
    clip: float,
) -> float:
    """Return the target of Munchausen DQN (Vieillard et al. 2020) in double precision."""

    def log_policy(values: list[float]) -> list[float]:
        best = max(values)
        total = sum(math.exp((value - best) / temperature) for value in values)
        return [(value - best) / temperature - math.log(total) for value in values]

    bonus = min(max(temperature * log_policy(now)[action], clip), 0.0)
    soft = sum(
        math.exp(log) * (value - temperature * log)
        for value, log in zip(following, log_policy(following), strict=True)
    )
    return reward + alpha * bonus + discount * soft


@pytest.mark.parametrize(
    ("alpha", "temperature", "clip"), [(0.9, 0.03, -1.0), (0.5, 1.0, -0.1), (0.0, 0.3, -1.0)]
)
def test_the_target_is_that_of_the_formula(alpha: float, temperature: float, clip: float) -> None:
    network, batch = _network(), random_batch(INFOS, rows=20)
    td = TD("munchausen", alpha, temperature, clip)
    found = _target(td, batch, network)
    now = network.action_values(batch.observation, batch.task).tolist()
    following = network.action_values(batch.next_observation, batch.task).tolist()
    for group, info in enumerate(INFOS):
        for row in range(20):
            expected = _by_loops(
                now[group][row][: info.num_actions],
                following[group][row][: info.num_actions],
                int(batch.action[group, row]),
                float(batch.reward[group, row]),
                float(batch.discount[group, row]),
                alpha,
                temperature,
                clip,
            )
            assert float(found[group, row]) == pytest.approx(expected, abs=1e-4)


def test_forbidden_actions_are_in_neither_policy() -> None:
    network, batch = _network(), random_batch(INFOS, rows=20)
    allowed = torch.zeros(2, 20, 4, dtype=torch.bool)
    allowed.scatter_(-1, batch.action.unsqueeze(-1), True)
    masks = {"action_mask": allowed, "next_action_mask": allowed}
    found = _target(TD("munchausen"), batch._replace(extra=masks), network)
    # With a single action there is nothing to choose: no bonus, no entropy.
    following = network.action_values(batch.next_observation, batch.task)
    chosen = following.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, batch.reward + batch.discount * chosen)


@each(HEADS)
def test_every_head_follows_the_policy_with_a_shifted_reward(head: Any) -> None:
    network, batch = _network(head), random_batch(INFOS, rows=20)
    alpha, temperature, clip = 0.9, 0.5, -1.0
    found = _target(TD("munchausen", alpha, temperature, clip), batch, network)
    prediction = network(batch.next_observation, batch.task)
    mask = network.allowed_actions(batch.task)
    now = network.action_values(batch.observation, batch.task)
    log_policy = softmax_policy(now, temperature, mask).log()
    chosen = log_policy.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    policy = softmax_policy(network.q_values(prediction), temperature, mask)
    entropy = -(policy * (policy + 1e-30).log()).sum(-1)
    shifted = (
        batch.reward
        + alpha * (temperature * chosen).clamp(clip, 0.0)
        + batch.discount * temperature * entropy
    )
    expected = network.head.target(shifted, batch.discount, prediction, policy)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (policy[0, :, 2:] == 0.0).all()


@each(PLAIN)
def test_a_cold_policy_without_bonus_takes_the_target_networks_maximum(head: Any) -> None:
    network, batch = _network(head), random_batch(INFOS)
    soft = _target(TD("munchausen", alpha=0.0, temperature=1e-6), batch, network)
    torch.testing.assert_close(soft, _target(TD("max"), batch, network), rtol=1e-4, atol=1e-4)


def _iterate(td: TD, reward: Floats, transition: Floats, gamma: float, rounds: int) -> Tensor:
    """Return the table of values to which repeated targets lead."""
    states, actions, _ = transition.shape
    info = TaskInfo(name="only", observation_shape=(states,), num_actions=actions)
    head = partial(LinearHead, init_scale=0.0)
    torso = partial(MLPTorso, hidden=(states,))
    network = QNetwork([info], torso, head)
    assert isinstance(network.head, LinearHead)
    with torch.no_grad():
        layer: Any = next(network.torso.children())[0]  # type: ignore[index]
        layer.weight.copy_(torch.eye(states))
        layer.bias.zero_()
    here, action, there = np.nonzero(transition)
    rows = torch.eye(states)
    batch = Transition(
        observation=rows[here][None],
        action=torch.from_numpy(action)[None],
        reward=torch.tensor(reward[here, action], dtype=torch.float32)[None],
        discount=torch.full((1, len(here)), gamma),
        next_observation=rows[there][None],
        weight=torch.ones(1, len(here)),
        replay_index=torch.zeros(1, len(here), dtype=torch.int64),
        task=torch.tensor([0]),
        extra={},
    )
    chance = torch.tensor(transition[here, action, there], dtype=torch.float32)
    for _ in range(rounds):
        table = torch.zeros(states, actions)
        place = torch.from_numpy(here), torch.from_numpy(action)
        table.index_put_(place, chance * _target(td, batch, network)[0], accumulate=True)
        with torch.no_grad():
            network.head.values.weight.copy_(table[None])
    return table


def test_without_bonus_repeated_targets_lead_to_soft_optimal_values() -> None:
    temperature, gamma = 0.3, 0.8
    mdp = random_mdp(seed=1, gamma=gamma, termination=0.0)
    expected = np.zeros_like(mdp.reward)
    for _ in range(200):
        soft = temperature * np.log(np.exp(expected / temperature).sum(-1))
        expected = mdp.backup(soft)
    td = TD("munchausen", alpha=0.0, temperature=temperature)
    found = _iterate(td, mdp.reward, mdp.transition, gamma, rounds=100)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_the_bonus_widens_action_gaps_and_keeps_the_best_actions() -> None:
    mdp = random_mdp(seed=1, gamma=0.8, termination=0.0)
    gaps, best = [], []
    for alpha in (0.0, 0.9):
        td = TD("munchausen", alpha=alpha, temperature=0.1, clip=-100.0)
        table = _iterate(td, mdp.reward, mdp.transition, 0.8, rounds=400)
        first, second = table.topk(2, dim=-1).values.unbind(-1)
        gaps.append(float((first - second).mean()))
        best.append(table.argmax(-1).tolist())
    # In the limit by 1 / (1 - alpha), as Vieillard et al. show of the action gap.
    assert gaps[1] > 5.0 * gaps[0]
    assert best[0] == best[1]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("alpha", -0.1), ("alpha", 1.1), ("temperature", 0.0), ("clip", 0.1)],
)
def test_arguments_out_of_range_are_refused(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=complaint(argument)):
        TD("munchausen", **{argument: value})
