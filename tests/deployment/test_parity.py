"""Whether the comparison sees what differs."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting_env import SINGLE
from helpers.policies import Policy, constant
from helpers.runs import small_data

from lit_mtdqn import TaskSpec
from lit_mtdqn.deployment.parity import Seen, compare, observe

SEEN = Seen(np.zeros((4, 3), np.float32), np.ones((4, 2), bool))


def exported(values: Any, action: int | None = None) -> Any:
    """Return something exported that says the same of every observation."""

    def acts(observation: Any, task: Any, allowed: Any) -> Any:
        shown = np.broadcast_to(np.array(values, np.float32), allowed.shape)
        best = np.where(allowed, shown, -np.inf).argmax(-1)
        return best if action is None else np.full_like(best, action), shown

    return acts


@pytest.mark.parametrize(
    ("network", "values", "same", "ties", "holds"),
    [
        ((1.0, 2.0), (1.0, 2.0), 4, 0, True),
        ((1.0, 2.0), (2.0, 1.0), 0, 0, False),
        ((2.0, 2.0), (2.0, 2.00001), 0, 4, True),  # equal to within rounding
        ((2.0, 1.99), (2.0, 2.00001), 0, 0, False),
        ((1.0, 2.0), (np.nan, np.nan), 0, 0, False),
        ((1.0, 2.0), (1.0005, 2.001), 4, 0, True),
        ((1.0, 2.0), (100.0, 200.0), 4, 0, False),  # a scale that was lost
    ],
)
def test_actions_are_compared_and_rounding_is_told_from_difference(
    network: tuple[float, ...], values: tuple[float, ...], same: int, ties: int, holds: bool
) -> None:
    found = compare(constant(*network), exported(values), SEEN, "task", 0)
    assert (found.same, found.ties, found.holds) == (same, ties, holds)


def test_values_that_are_no_numbers_are_seen_where_the_action_is_right() -> None:
    acts = exported((np.nan, 2.0), action=1)
    assert not compare(constant(1.0, 2.0), acts, SEEN, "task", 0).holds


def test_one_observation_is_asked_alone_before_many_at_a_time() -> None:
    asked: list[int] = []

    def acts(observation: Any, task: Any, allowed: Any) -> Any:
        asked.append(observation.shape[1])
        return exported((1.0, 2.0))(observation, task, allowed)

    seen = Seen(np.zeros((2500, 3), np.float32), np.ones((2500, 2), bool))
    assert compare(constant(1.0, 2.0), acts, seen, "task", 0).same == 2500
    assert asked == [1, 1000, 1000, 499]


def test_forbidden_actions_are_never_equally_good() -> None:
    seen = SEEN._replace(allowed=np.tile([True, False], (4, 1)))
    found = compare(constant(2.0, 2.0), exported((2.0, 2.0), action=1), seen, "task", 0)
    assert (found.same, found.ties) == (0, 0)


def test_half_of_what_is_seen_comes_from_greedy_episodes_and_half_from_random_ones() -> None:
    data = small_data(
        {"task": TaskSpec(env=SINGLE, kwargs={"num_actions": 3}, action_mask_key="mask")}
    )
    policy = Policy(lambda observation, _: torch.zeros(*observation.shape[:2], 3))
    seen = observe(policy, data, "task", 41)
    assert seen.observation.shape == (41, 3)
    assert seen.allowed.shape == (41, 3)
    assert (seen.allowed.sum(-1) == 2).all()
    identities = seen.observation[:, 0]
    assert np.array_equal(identities[:16], identities[21:37])  # the same starts
