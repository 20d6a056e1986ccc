"""Targets by a policy that tasks share, while it is distilled from theirs."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers.asserts import assert_same_state, complaint
from helpers.batches import random_batch
from helpers.chain import ChainEnv
from helpers.counting_env import VECTOR
from helpers.heads import HEADS, each
from helpers.runs import fit, small_data
from helpers.standalone import Standalone
from helpers.tabular import Floats
from torch import Tensor
from torchjd import aggregation

from lit_mtdqn import DQN, Adam, MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.functional.parameters import update_target_
from lit_mtdqn.networks import Columns, LinearHead, MLPTorso, Prior, QNetwork
from lit_mtdqn.objectives import TD
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import Prediction, Transition

INFOS = [TaskInfo(name=name, observation_shape=(3,), num_actions=3) for name in ("one", "other")]
SCALED = partial(LinearHead, init_scale=1.0)


def make_network(head: Any = SCALED, **prior: Any) -> Any:
    torso = partial(MLPTorso, hidden=(6,))
    given = {"alpha": 0.6, "temperature": 0.4, **prior}
    return partial(QNetwork, torso=torso, head=head, prior=partial(Prior, **given))


def _network(head: Any = SCALED, **prior: Any) -> QNetwork:
    torch.manual_seed(0)
    network: QNetwork = make_network(head, **prior)(INFOS)
    assert network.prior is not None
    with torch.no_grad():
        network.prior.logits.weight.normal_()
    return network


def never_asked(observation: Tensor, task: Tensor) -> Prediction:
    raise AssertionError("the target needs the target network alone")


def _target(batch: Transition, network: QNetwork) -> Tensor:
    return TD("distral").target(batch, never_asked, network)


def test_the_target_is_the_reward_and_the_soft_value_under_the_slow_prior() -> None:
    network, batch = _network(), random_batch(INFOS, rows=20)
    found = _target(batch, network)
    prediction = network(batch.next_observation, batch.task)
    assert prediction.prior is not None
    priors, values = prediction.prior.softmax(-1).tolist(), prediction.output.tolist()
    for group in range(2):
        for row in range(20):
            pairs = zip(priors[group][row], values[group][row], strict=True)
            total = sum(p**0.6 * math.exp(q / 0.4) for p, q in pairs)
            soft = 0.4 * math.log(total)
            expected = float(batch.reward[group, row] + batch.discount[group, row] * soft)
            assert float(found[group, row]) == pytest.approx(expected, abs=1e-4)


@each(HEADS)
def test_every_head_follows_the_policy_with_a_shifted_reward(head: Any) -> None:
    network, batch = _network(head), random_batch(INFOS, rows=20)
    prediction = network(batch.next_observation, batch.task)
    assert network.prior is not None
    assert prediction.prior is not None
    policy, rest = network.prior.bootstrap(network.q_values(prediction), prediction.prior)
    shifted = batch.reward + batch.discount * rest
    expected = network.head.target(shifted, batch.discount, prediction, policy)
    torch.testing.assert_close(_target(batch, network), expected)


def test_forbidden_actions_are_not_followed() -> None:
    network, batch = _network(), random_batch(INFOS, rows=20)
    allowed = torch.zeros(2, 20, 3, dtype=torch.bool)
    allowed.scatter_(-1, batch.action.unsqueeze(-1), True)
    masks = {"action_mask": allowed, "next_action_mask": allowed}
    following = network(batch.next_observation, batch.task).output
    # Nothing to choose and nothing to stray from.
    chosen = following.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    expected = batch.reward + batch.discount * chosen
    torch.testing.assert_close(_target(batch._replace(extra=masks), network), expected.detach())


def _learner(**options: Any) -> MultiTaskDQN:
    torch.manual_seed(0)
    sgd: Any = partial(torch.optim.SGD, lr=0.05)
    given: dict[str, Any] = {"network": make_network(), "optimizer": sgd, "scale": None, **options}
    model = MultiTaskDQN(INFOS, objective=partial(TD, bootstrap="distral"), **given)
    Standalone(model)
    return model


def test_targets_follow_the_prior_of_the_target_network_alone() -> None:
    model, batch = _learner(), random_batch(INFOS)
    before = model.target(batch)
    assert model.network.prior is not None
    assert model.target_network.prior is not None
    with torch.no_grad():
        model.network.prior.logits.weight.normal_()
    assert torch.equal(model.target(batch), before)
    with torch.no_grad():
        model.target_network.prior.logits.weight.normal_()
    assert not torch.equal(model.target(batch), before)


def test_the_priors_term_is_weighted_and_balanced_with_its_task() -> None:
    batch = random_batch(INFOS)
    aggregator = partial(Aggregated, aggregator=aggregation.Mean)
    gradients = []
    for options in ({}, {"balancer": aggregator}):
        model = _learner(**options)
        losses = model.losses(batch, model.update_parameters(batch))
        prediction = model.network(batch.observation, batch.task)
        (distance,) = model.network.auxiliary(prediction, batch.task).values()
        torch.testing.assert_close(losses.auxiliary["prior"], distance * batch.weight)
        model.accumulate_gradients(losses, batch)
        gradients.append([p.grad for p in model.network.parameters()])
    torch.testing.assert_close(*gradients)


def test_targets_need_a_prior_and_a_prior_that_tasks_follow_needs_them() -> None:
    with pytest.raises(ValueError, match=complaint("model.network")):
        DQN(INFOS, objective=partial(TD, bootstrap="distral"))
    with pytest.raises(ValueError, match=complaint("model.objective.bootstrap")):
        DQN(INFOS, make_network(alpha=0.5))
    assert DQN(INFOS, make_network(alpha=0.0)).network.prior is not None


@pytest.mark.parametrize("scale", [None, PopArt])
def test_a_run_learns_its_prior_and_loads(scale: Any, tmp_path: Any) -> None:
    data = small_data({"a": TaskSpec(env=VECTOR), "b": TaskSpec(env=VECTOR, n_step=2)})
    model = MultiTaskDQN(
        data.task_infos, make_network(), objective=partial(TD, bootstrap="distral"), scale=scale
    )
    trainer = fit(data, model, log_every_n_steps=1)
    assert float(trainer.callback_metrics["train/prior"]) >= 0.0
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert_same_state(MultiTaskDQN.load_from_checkpoint(tmp_path / "last.ckpt"), model)


CHAINS: dict[str, Any] = {"short": {"states": 4, "actions": 3}, "long": {"states": 6, "actions": 3}}
PROCESSES = [ChainEnv(**chain).mdp(gamma=0.8) for chain in CHAINS.values()]
TEMPERATURE = 0.3


def _every_move() -> Transition:
    """Return all moves of both chains in equally many rows; states are one-hot of six."""
    columns = []
    for chain, repeats in zip(CHAINS.values(), (3, 2), strict=True):
        process, states = ChainEnv(**chain), np.repeat(np.arange(chain["states"]), 3)
        actions = np.tile(np.arange(3), chain["states"])
        moves = [process.move(int(s), int(a)) for s, a in zip(states, actions, strict=True)]
        rows = states, actions, *zip(*moves, strict=True)
        columns.append([np.tile(np.array(row), repeats) for row in rows])
    here, action, there, reward, ended = (
        torch.from_numpy(np.stack(column)) for column in zip(*columns, strict=True)
    )
    return Transition(
        observation=torch.eye(6)[here],
        action=action,
        reward=reward.float(),
        discount=0.8 * (1.0 - ended.float()),
        next_observation=torch.eye(6)[there],
        weight=torch.ones(here.shape),
        replay_index=torch.zeros_like(here),
        task=torch.tensor([0, 1]),
        extra={},
    )


def _fixed_point(bootstrap: str, alpha: float) -> tuple[list[Floats], Floats]:
    """Return the values of both chains and the prior, where each follows from the others."""
    prior = np.full((6, 3), 1.0 / 3.0)
    tables = [np.zeros_like(process.reward) for process in PROCESSES]
    for _ in range(300):
        weights = [prior[: len(table)] ** alpha * np.exp(table / TEMPERATURE) for table in tables]
        values = [TEMPERATURE * np.log(weight.sum(-1)) for weight in weights]
        if bootstrap == "double":
            values = [table.max(-1) for table in tables]
        tables = [p.backup(value) for p, value in zip(PROCESSES, values, strict=True)]
        met = np.zeros((6, 3))
        for weight in weights:
            # Each task is seen as often as the other, evenly in its own states.
            met[: len(weight)] += weight / weight.sum(-1, keepdims=True) / len(weight)
        prior = met / met.sum(-1, keepdims=True)
    return tables, prior


@pytest.mark.parametrize(("bootstrap", "alpha"), [("distral", 0.8), ("double", 0.0)])
def test_tasks_and_prior_settle_where_each_follows_from_the_others(
    bootstrap: Any, alpha: float
) -> None:
    infos = [TaskInfo(name=name, observation_shape=(6,), num_actions=3) for name in CHAINS]
    torch.manual_seed(0)
    network = partial(
        QNetwork,
        torso=partial(MLPTorso, hidden=(24,)),
        sharing=Columns,
        prior=partial(Prior, alpha=alpha, temperature=TEMPERATURE),
    )
    adam: Any = partial(Adam, lr=1e-2)
    objective = partial(TD, bootstrap=bootstrap)
    model = MultiTaskDQN(infos, network, objective, optimizer=adam, scale=None)
    runner, batch = Standalone(model), _every_move()
    for _ in range(25):
        runner.update(*[batch] * 20)
        update_target_(model.target_network, model.network)
    tables, prior = _fixed_point(bootstrap, alpha)
    rows, task = torch.eye(6).expand(2, 6, 6), torch.tensor([0, 1])
    prediction = model.network(rows, task)
    assert prediction.prior is not None
    for learned, table in zip(prediction.output.detach().numpy(), tables, strict=True):
        np.testing.assert_allclose(learned[: len(table)], table, atol=0.03)
    shared = prediction.prior.softmax(-1).detach().numpy()
    np.testing.assert_allclose(shared, np.stack([prior] * 2), atol=0.03)
