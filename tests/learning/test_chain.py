"""The real learner, data module and Trainer find values that are known exactly."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers.chain import ChainEnv
from helpers.runs import quiet_trainer
from helpers.tabular import Floats, optimal_q

from lit_mtdqn import DQN, PQN, Adam, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import EpsilonDecay, TargetNetworkSync
from lit_mtdqn.networks import DuelingHead, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import QLambda
from lit_mtdqn.types import Linear

# Largest error of a single action value, in units of the reward at the goal, which is 1.
TOLERANCE = 0.05


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Make sums independent of the machine's cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _chain(gamma: float, n_step: int = 1, time_limit: int | None = None, **kwargs: Any) -> TaskSpec:
    return TaskSpec(
        env="helpers.chain:ChainEnv",
        kwargs=kwargs,
        gamma=gamma,
        n_step=n_step,
        time_limit=time_limit,
    )


def _learn(
    tasks: dict[str, TaskSpec],
    *,
    epsilon: float,
    head: type[LinearHead | DuelingHead] = LinearHead,
    learning_rate: float = 5e-3,
) -> DQN:
    updates = 1_000
    torch.manual_seed(0)
    data = RolloutDataModule(
        tasks,
        num_envs=16,
        replay_ratio=1 / 32,
        batch_size=64,
        replay_capacity=20_000,
        warmup_env_steps=500,
        total_env_steps=None,
        total_updates=updates,
        seed=0,
    )
    model = DQN(
        data.task_infos,
        network=partial(QNetwork, torso=partial(MLPTorso, hidden=(64,)), head=head),
        optimizer=partial(Adam, lr=learning_rate),
        learning_rate_schedule=Linear(1.0, 0.02, updates),
    )
    callbacks = TargetNetworkSync(every_n_updates=20), EpsilonDecay(1.0, epsilon, 1_000)
    quiet_trainer(*callbacks, limit_val_batches=0).fit(model, data)
    return model


def _learned_and_optimal(model: DQN, tasks: dict[str, TaskSpec]) -> Iterator[tuple[Floats, Floats]]:
    """Yield each task's learned and exact action values, [states, actions]."""
    for index, spec in enumerate(tasks.values()):
        chain = ChainEnv(**spec.kwargs)
        (size,) = model.tasks[index].observation_shape
        observation = torch.eye(size)[None, : chain.states]
        values = model.action_values(observation, torch.tensor([index]))[0, :, : chain.actions]
        yield values.double().numpy(), optimal_q(chain.mdp(spec.gamma))


def _assert_solved(model: DQN, tasks: dict[str, TaskSpec]) -> None:
    for learned, optimal in _learned_and_optimal(model, tasks):
        np.testing.assert_allclose(learned, optimal, rtol=0.0, atol=TOLERANCE)


def test_one_step_targets_find_the_optimal_values_from_random_behaviour() -> None:
    tasks = {"chain": _chain(gamma=0.8, states=5)}
    _assert_solved(_learn(tasks, epsilon=1.0), tasks)


def test_three_step_targets_bootstrap_through_truncation() -> None:
    # Three-step targets follow the behaviour for two steps: at epsilon 0.05 that lowers the exact
    # fixed point by at most 0.02. Treating the limit as an end would lower it by more than 0.3.
    tasks = {"chain": _chain(gamma=0.7, n_step=3, time_limit=4, states=5, endless=True)}
    _assert_solved(_learn(tasks, epsilon=0.05), tasks)


def test_one_network_solves_two_tasks_of_unlike_sizes_and_discounts() -> None:
    tasks = {
        "long": _chain(gamma=0.8, states=5),
        "short": _chain(gamma=0.5, states=3, actions=3, endless=True, time_limit=10),
    }
    _assert_solved(_learn(tasks, epsilon=0.5), tasks)


def test_a_dueling_head_finds_the_same_values() -> None:
    tasks = {"chain": _chain(gamma=0.8, states=5, actions=3)}
    _assert_solved(_learn(tasks, epsilon=1.0, head=DuelingHead, learning_rate=1e-2), tasks)


def test_one_step_returns_of_the_latest_phase_find_the_optimal_values() -> None:
    tasks = {
        "long": _chain(gamma=0.8, states=5),
        "short": _chain(gamma=0.5, states=3, actions=3, endless=True, time_limit=10),
    }
    updates = 1_000
    torch.manual_seed(0)
    data = RolloutDataModule(
        tasks,
        num_envs=16,
        replay_ratio=1 / 32,
        phase_vector_steps=16,
        batch_size=64,
        warmup_env_steps=0,
        total_env_steps=None,
        total_updates=updates,
        keeps_replays=False,
        seed=0,
    )
    model = PQN(
        data.task_infos,
        network=partial(QNetwork, torso=partial(MLPTorso, hidden=(64,), layer_norm=True)),
        objective=partial(QLambda, trace_decay=0.0),
        optimizer=partial(Adam, lr=5e-3),
        learning_rate_schedule=Linear(1.0, 0.02, updates),
    )
    quiet_trainer(EpsilonDecay(1.0, 0.5, 1_000), limit_val_batches=0).fit(model, data)
    _assert_solved(model, tasks)
