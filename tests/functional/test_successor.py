from itertools import product

import numpy as np
import pytest
import torch
from helpers.asserts import assert_table
from helpers.gathering import tabulate
from helpers.tabular import Ints, optimal_q, policy_value

from lit_mtdqn.functional.successor import improved_values

GAMMA = 0.8
SHIPPED = ("A..B", "....", "....", "B..A")
FIELD = tabulate(("A.B", "...", "B.."))


def _greedy(worth: tuple[float, ...]) -> Ints:
    policy: Ints = optimal_q(FIELD.mdp(np.array(worth), GAMMA)).argmax(-1)
    return policy


def test_the_best_policy_of_each_action_counts() -> None:
    # Two policies, two actions, two cumulants.
    gathered = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 1.0], [0.0, 1.0]]])
    assert_table(improved_values(gathered, torch.tensor([1.0, 1.0])), [4.0, 2.0])
    assert_table(improved_values(gathered, torch.tensor([1.0, -3.0])), [1.0, -3.0])


def test_weights_are_those_of_each_row() -> None:
    gathered, weights = torch.randn(3, 5, 2, 4, 6), torch.randn(3, 1, 6)
    found = improved_values(gathered, weights)
    assert found.shape == (3, 5, 4)
    each = (gathered[2, 1] @ weights[2, 0]).amax(0)
    torch.testing.assert_close(found[2, 1], each)


@pytest.mark.parametrize("worth", [(1.0, -1.0), (-1.0, 0.5), (0.3, 0.7), (-1.0, -1.0)])
def test_the_improved_policy_is_nowhere_worse_than_any_that_it_is_made_of(
    worth: tuple[float, float],
) -> None:
    policies = [_greedy((1.0, 0.0)), _greedy((0.0, 1.0)), np.zeros(len(FIELD.observation), int)]
    gathered = torch.from_numpy(np.stack([FIELD.gathered(p, GAMMA) for p in policies], 1))
    weights = torch.tensor(worth, dtype=torch.float64)
    values = improved_values(gathered, weights)
    mdp = FIELD.mdp(np.array(worth), GAMMA)
    improved = policy_value(mdp, values.argmax(-1).numpy())
    for policy in policies:
        assert (improved >= policy_value(mdp, policy) - 1e-9).all()
    # What it promises is what it keeps at least.
    assert (improved >= values.amax(-1).numpy() - 1e-9).all()


def test_it_is_better_than_all_of_them_where_a_task_takes_something_of_each() -> None:
    policies = [_greedy((1.0, -1.0)), _greedy((-1.0, 1.0))]
    gathered = torch.from_numpy(np.stack([FIELD.gathered(p, GAMMA) for p in policies], 1))
    values = improved_values(gathered, torch.ones(2, dtype=torch.float64))
    mdp = FIELD.mdp(np.ones(2), GAMMA)
    improved = policy_value(mdp, values.argmax(-1).numpy()).mean()
    best = max(policy_value(mdp, policy).mean() for policy in policies)
    assert improved > 1.1 * best


@pytest.mark.parametrize("worth", [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0)])
def test_two_policies_of_the_shipped_field_make_one_nearly_optimal_for_each_task_held_out(
    worth: tuple[float, float],
) -> None:
    field, gamma = tabulate(SHIPPED), 0.9
    likes = [optimal_q(field.mdp(kind, gamma)).argmax(-1) for kind in np.eye(2)]
    gathered = torch.from_numpy(np.stack([field.gathered(policy, gamma) for policy in likes], 1))
    improved = improved_values(gathered, torch.tensor(worth, dtype=torch.float64)).argmax(-1)
    mdp = field.mdp(np.array(worth), gamma)
    complete = field.observation[:, 16:].all(-1)
    best = optimal_q(mdp).max(-1)[complete]
    found, *others = (policy_value(mdp, p)[complete] for p in (improved.numpy(), *likes))
    # From where two things are equally near it may turn to the one that lies worse for the rest.
    assert (found >= 0.9 * best - 1e-9).all()
    assert max(other.mean() for other in others) < 0.95 * found.mean()


def test_values_are_those_of_the_rewards_that_the_weights_make() -> None:
    policy = _greedy((1.0, 0.0))
    gathered = FIELD.gathered(policy, GAMMA)
    for worth in product((-1.0, 0.0, 2.0), repeat=2):
        mdp = FIELD.mdp(np.array(worth), GAMMA)
        exact = mdp.backup(policy_value(mdp, policy))
        np.testing.assert_allclose(gathered @ np.array(worth), exact, atol=1e-9)
