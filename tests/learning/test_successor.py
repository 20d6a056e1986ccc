"""Successor features find what is known exactly, and tasks that were never played."""

from functools import partial

import numpy as np
import torch
from helpers.gathering import tabulate
from helpers.runs import quiet_trainer
from helpers.tabular import optimal_q, policy_value

from lit_mtdqn import Adam, MultiTaskDQN, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import EpsilonDecay, TargetNetworkSync
from lit_mtdqn.networks import MLPTorso, QNetwork, SuccessorHead
from lit_mtdqn.objectives import RewardRegression, SuccessorTD
from lit_mtdqn.types import Linear

FIELD, GAMMA = ("A.B", "..."), 0.7
WORTH = {"likes_a": [1.0, 0.0], "likes_b": [0.0, 1.0], "likes_both": [1.0, 1.0]}
# Largest error of a single number, in units of one thing.
TOLERANCE = 0.06


def _task(worth: list[float], is_played: bool) -> TaskSpec:
    return TaskSpec(
        env="lit_mtdqn/Gathering-v0",
        kwargs={"worth": worth, "field": FIELD},
        cumulants_key="cumulants",
        gamma=GAMMA,
        acts=is_played,
        learns=is_played,
    )


def _learn() -> MultiTaskDQN:
    updates = 800
    torch.manual_seed(0)
    tasks = {name: _task(worth, name != "likes_both") for name, worth in WORTH.items()}
    data = RolloutDataModule(
        tasks,
        num_envs=16,
        replay_ratio=1 / 8,
        batch_size=128,
        replay_capacity=10_000,
        warmup_env_steps=1_000,
        total_env_steps=None,
        total_updates=updates,
        seed=0,
    )
    # Only what is to be played without having been learned needs a given worth.
    head = partial(SuccessorHead, cumulants=2, weights={"likes_both": WORTH["likes_both"]})
    model = MultiTaskDQN(
        data.task_infos,
        partial(QNetwork, torso=partial(MLPTorso, hidden=(128,)), head=head),
        SuccessorTD,
        objectives=[RewardRegression],
        optimizer=partial(Adam, lr=1e-2),
        learning_rate_schedule=Linear(1.0, 0.02, updates),
        scale=None,
    )
    callbacks = TargetNetworkSync(every_n_updates=20), EpsilonDecay(1.0, 1.0, 1_000)
    quiet_trainer(*callbacks, limit_val_batches=0).fit(model, data)
    return model


def test_values_of_both_tasks_are_optimal_and_a_third_is_played_without_having_been_seen() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, field = _learn(), tabulate(FIELD)
    torch.set_num_threads(threads)
    head = model.network.head
    assert isinstance(head, SuccessorHead)
    states = torch.from_numpy(field.observation).float().expand(3, -1, -1)
    values = model.action_values(states, torch.arange(3)).double().numpy()
    psi = model.network(states, torch.arange(3)).output[..., 1:].detach().double().numpy()
    for place, worth in enumerate(list(WORTH.values())[:2]):
        learned = head.weights(torch.tensor([place]))[0].detach().numpy()
        np.testing.assert_allclose(learned, worth, atol=TOLERANCE)
        optimal = optimal_q(field.mdp(np.array(worth), GAMMA))
        np.testing.assert_allclose(psi[place] @ np.array(worth), optimal, atol=TOLERANCE)
    # The third is played as well as it can be, and better than by either policy that was learned.
    mdp = field.mdp(np.array(WORTH["likes_both"]), GAMMA)
    improved = policy_value(mdp, values[2].argmax(-1))
    np.testing.assert_allclose(improved, optimal_q(mdp).max(-1), atol=1e-9)
    others = [policy_value(mdp, values[place].argmax(-1)) for place in range(2)]
    assert max(other.mean() for other in others) < 0.95 * improved.mean()
