"""Every head finds values that are known exactly, from batches of all there is to learn."""

from functools import partial
from typing import Any

import numpy as np
import torch
from helpers.chain import ChainEnv
from helpers.heads import each
from helpers.tabular import optimal_q
from torch import Tensor

from lit_mtdqn import DQN, Adam, TaskInfo
from lit_mtdqn.functional.parameters import update_target_
from lit_mtdqn.networks import (
    C51Head,
    DuelingHead,
    HLGaussHead,
    ImplicitQuantileHead,
    LinearHead,
    MLPTorso,
    QNetwork,
    QuantileHead,
)
from lit_mtdqn.objectives import TD
from lit_mtdqn.types import Transition

# Rewards at the goal are 1, so values lie within [0, 1].
C51 = partial(C51Head, v_min=-0.5, v_max=1.5)
HL_GAUSS = partial(HLGaussHead, v_min=-0.5, v_max=1.5)
# Small deltas make the mean of quantiles that of the distribution.
QUANTILE = partial(QuantileHead, num_quantiles=32, huber_delta=0.02)
IMPLICIT = partial(
    ImplicitQuantileHead,
    num_fractions=16,
    num_target_fractions=16,
    num_acting_fractions=64,
    huber_delta=0.02,
)
HEADS: dict[str, Any] = {
    "linear": LinearHead,
    "dueling": DuelingHead,
    "c51": C51,
    "hl_gauss": HL_GAUSS,
    "quantile": QUANTILE,
    "implicit": IMPLICIT,
    "noisy": partial(LinearHead, noisy_sigma=0.1),
    "dueling noisy c51": partial(C51, dueling=True, hidden=16, noisy_sigma=0.1),
}


def _batch(rows: list[tuple[int, int, float, float, int]], states: int) -> Transition:
    """Return rows of state, action, reward, discount and next state, as one group."""
    state, action, reward, discount, following = (
        torch.tensor(column) for column in zip(*rows, strict=True)
    )
    one_hot = torch.eye(states)
    return Transition(
        observation=one_hot[state][None],
        action=action[None],
        reward=reward.float()[None],
        discount=discount.float()[None],
        next_observation=one_hot[following][None],
        weight=torch.ones(1, len(rows)),
        replay_index=torch.zeros(1, len(rows), dtype=torch.int64),
        task=torch.tensor([0]),
        extra={},
    )


def _learn(
    head: Any, batch: Transition, actions: int, updates: int, objective: Any = TD, lr: float = 1e-2
) -> DQN:
    torch.manual_seed(0)
    states = batch.observation.shape[-1]
    task = TaskInfo(name="only", observation_shape=(states,), num_actions=actions)
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=(32,)), head=head)
    model = DQN([task], network, objective, partial(Adam, lr=lr))
    optimizer = model.configure_optimizers()
    model.network.train()
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1.0 - 0.98 * update / updates)
        model.network.resample_noise()
        model.target_network.resample_noise()
        optimizer.zero_grad()
        torch.autograd.backward(model.total_loss(model.losses(batch), batch))
        optimizer.step()
        if update % 20 == 0:
            update_target_(model.target_network, model.network)
    model.network.eval()
    return model


def _values(model: DQN, states: int) -> Tensor:
    return model.action_values(torch.eye(states)[None], torch.tensor([0]))[0]


# Action 0 earns 1 in a quarter of all cases and 0 otherwise, action 1 always a half.
BANDIT = _batch([(0, 0, float(i == 0), 0.0, 0) for i in range(4)] + [(0, 1, 0.5, 0.0, 0)] * 4, 1)


@each(HEADS)
def test_a_bandit_is_worth_the_mean_of_its_rewards(head: Any) -> None:
    model = _learn(head, BANDIT, actions=2, updates=300)
    expected = torch.tensor([[0.25, 0.5]])
    torch.testing.assert_close(_values(model, 1), expected, rtol=0.0, atol=0.03)


def test_probabilities_of_a_bandits_rewards_are_learned() -> None:
    head = partial(C51Head, num_atoms=5, v_min=-0.5, v_max=1.5)
    model = _learn(head, BANDIT, actions=2, updates=300, lr=3e-2)
    prediction = model.network(BANDIT.observation[:, :1], BANDIT.task)
    probabilities = prediction.output.softmax(-1)[0, 0]
    expected = torch.tensor([[0.0, 0.75, 0.0, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(probabilities, expected, rtol=0.0, atol=0.03)


@each({"quantile": QUANTILE, "implicit": IMPLICIT})
def test_quantiles_of_a_bandits_rewards_are_learned(head: Any) -> None:
    model = _learn(head, BANDIT, actions=2, updates=600)
    prediction = model.network(BANDIT.observation[:, :1], BANDIT.task)
    assert prediction.taus is not None
    fractions, quantiles = prediction.taus[0], prediction.output[0, 0]
    # Hardly anything pulls at the outermost quantiles.
    inner = (fractions > 0.03) & (fractions < 0.97)
    below, above = inner & (fractions < 0.65), inner & (fractions > 0.85)
    assert (quantiles[0][below].abs() < 0.1).all()
    assert ((quantiles[0][above] - 1.0).abs() < 0.1).all()
    assert ((quantiles[1][inner] - 0.5).abs() < 0.1).all()


def _chain(states: int, gamma: float) -> Transition:
    chain, rows = ChainEnv(states=states), []
    for state, action in np.ndindex(states, 2):
        following, reward, terminated = chain.move(int(state), int(action))
        rows.append((int(state), int(action), reward, gamma * (1.0 - terminated), following))
    return _batch(rows, states)


@each(HEADS)
def test_a_chain_is_worth_its_optimal_values(head: Any) -> None:
    model = _learn(head, _chain(5, 0.8), actions=2, updates=600)
    optimal = optimal_q(ChainEnv(states=5).mdp(0.8))
    np.testing.assert_allclose(_values(model, 5).numpy(), optimal, rtol=0.0, atol=0.05)


@each({"linear": LinearHead, "hl_gauss": HL_GAUSS})
def test_a_soft_policy_without_bonus_solves_the_chain_nearly_as_well(head: Any) -> None:
    objective = partial(TD, bootstrap="munchausen", alpha=0.0, temperature=0.01)
    model = _learn(head, _chain(5, 0.8), actions=2, updates=600, objective=objective)
    optimal = optimal_q(ChainEnv(states=5).mdp(0.8))
    np.testing.assert_allclose(_values(model, 5).numpy(), optimal, rtol=0.0, atol=0.05)


@each({"linear": LinearHead, "c51": C51, "quantile": QUANTILE})
def test_a_bonus_for_likely_actions_leaves_the_best_actions_best(head: Any) -> None:
    objective = partial(TD, bootstrap="munchausen")
    model = _learn(head, _chain(5, 0.8), actions=2, updates=600, objective=objective)
    assert (_values(model, 5).argmax(-1) == 1).all()
