"""Steps that a process of its own plays ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
import torch
from helpers.asserts import complaint
from helpers.told_steps import drawn_steps, dying_steps, failing_steps, told_steps
from torch import nn

from lit_mtdqn.rollout.background import BackgroundSteps, MakeSteps

BLOCK = 2


@contextmanager
def played(make: MakeSteps, network: nn.Module, epsilon: list[float]) -> Iterator[BackgroundSteps]:
    steps = BackgroundSteps(make, network, lambda: np.array(epsilon), BLOCK, seed=7)
    try:
        yield steps
    finally:
        steps.close()
        assert not steps._process.is_alive()


def test_a_block_is_played_by_the_network_and_epsilon_of_when_the_one_before_was_taken() -> None:
    network, epsilon = nn.Linear(1, 1, bias=False), [1.0]
    seen = []
    with played(told_steps, network, epsilon) as steps:
        for weight in range(7):
            network.weight.data.fill_(weight)
            epsilon[0] = weight / 8
            row = next(steps)
            assert row.observation.shape == (1, 1)
            seen.append((row.observation.item(), 8 * row.reward.item(), row.action.item()))
    # The first step of a block begins the next one; the first of all begins its own, too.
    assert seen == [(0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 4), (2, 2, 5), (2, 2, 6), (4, 4, 7)]


def test_what_it_draws_follows_from_the_seed_and_leaves_the_learner_s_draws_alone() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        with played(drawn_steps, nn.Linear(1, 1), [0.0]) as steps:
            found.append([next(steps).observation.item() for _ in range(3)])
        found[-1].append(float(torch.rand(())))
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


@pytest.mark.parametrize(
    ("make", "reason"),
    [(failing_steps, "ValueError: the road ends here"), (dying_steps, "exit code 3")],
)
def test_a_failure_is_told_where_steps_are_taken(make: MakeSteps, reason: str) -> None:
    with (
        played(make, nn.Linear(1, 1), [0.0]) as steps,
        pytest.raises(RuntimeError, match=complaint("tasks")) as error,
    ):
        next(steps)
    assert f"Got {reason}" in str(error.value)


def test_its_process_ends_where_nobody_holds_it() -> None:
    steps = BackgroundSteps(told_steps, nn.Linear(1, 1), lambda: np.zeros(1), BLOCK, seed=0)
    next(steps)
    process = psutil.Process(steps._process.pid)
    del steps
    process.wait(timeout=10.0)
