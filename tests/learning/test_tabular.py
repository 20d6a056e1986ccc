import numpy as np
import pytest
import torch
from helpers.chain import ChainEnv
from helpers.tabular import FiniteMDP, optimal_q, policy_value, random_mdp
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.functional.td import td_target

seeds = st.integers(0, 10_000)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, gamma=st.floats(0.0, 0.99))
def test_value_iteration_brings_any_two_tables_closer_by_gamma(seed: int, gamma: float) -> None:
    mdp = random_mdp(seed, gamma=gamma, termination=0.0)
    one, other = np.random.default_rng(seed).normal(scale=10.0, size=(2, *mdp.reward.shape))
    before = np.abs(one - other).max()
    after = np.abs(mdp.backup(one.max(-1)) - mdp.backup(other.max(-1))).max()
    assert after <= gamma * before + 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_the_value_of_a_policy_is_its_reward_plus_its_own_discounted_next_value(seed: int) -> None:
    mdp = random_mdp(seed)
    policy = np.random.default_rng(seed).integers(3, size=5)
    value = policy_value(mdp, policy)
    np.testing.assert_allclose(mdp.backup(value)[np.arange(5), policy], value, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_policy_beats_the_greedy_policy_of_the_optimal_values(seed: int) -> None:
    mdp = random_mdp(seed, states=4, actions=3)
    q_values = optimal_q(mdp)
    best = policy_value(mdp, q_values.argmax(-1))
    np.testing.assert_allclose(best, q_values.max(-1), atol=1e-9)
    for policy in mdp.policies():
        assert (policy_value(mdp, policy) <= best + 1e-9).all()


def test_the_optimal_values_of_a_chain_are_those_worked_out_by_hand() -> None:
    ends, endless = (ChainEnv(states=3, endless=kind).mdp(gamma=0.5) for kind in (False, True))
    # Right: 1, a step later half of it. Left: one step further away, or against the wall.
    np.testing.assert_allclose(optimal_q(ends), [[0.125, 0.25], [0.125, 0.5], [0.25, 1.0]])
    # A round of three steps repeats at gamma^3, so all values grow by 1 / (1 - 1/8).
    np.testing.assert_allclose(optimal_q(endless), optimal_q(ends) * 8 / 7, rtol=1e-9)


def _sampled_next_states(mdp: FiniteMDP, generator: torch.Generator) -> torch.Tensor:
    """Draw a next state for every state and action; index S means that the episode terminated."""
    states, actions = mdp.reward.shape
    going = torch.from_numpy(mdp.transition).flatten(0, 1)
    ending = (1.0 - going.sum(-1, keepdim=True)).clamp(min=0.0)
    chances = torch.cat([going, ending], dim=-1)
    return torch.multinomial(chances, 1, generator=generator).view(states, actions)


@pytest.mark.parametrize("termination", [0.0, 0.2])
def test_q_learning_with_our_target_converges_to_the_optimal_values(termination: float) -> None:
    mdp = random_mdp(seed=0, gamma=0.7, termination=termination)
    generator = torch.Generator().manual_seed(0)
    states, _ = mdp.reward.shape
    reward = torch.from_numpy(mdp.reward)
    q_values = torch.zeros_like(reward)
    for count in range(6_000):
        following = _sampled_next_states(mdp, generator)
        terminated = following == states
        next_value = q_values.amax(-1)[following.clamp(max=states - 1)]
        # Garbage where nothing follows: the discount alone must silence it.
        next_value = next_value.masked_fill(terminated, 1e3)
        target = td_target(reward, mdp.gamma * (~terminated), next_value)
        q_values += (target - q_values) / (1.0 + 0.1 * count)
    np.testing.assert_allclose(q_values.numpy(), optimal_q(mdp), atol=0.05)
