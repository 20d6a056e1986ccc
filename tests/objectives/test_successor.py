from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch
from helpers.runs import fit, small_data
from helpers.standalone import Standalone
from torch import Tensor
from torchjd import aggregation

from lit_mtdqn import DQN, Adam, MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.networks import LinearHead, MLPTorso, QNetwork, SuccessorHead
from lit_mtdqn.objectives import TD, RewardRegression, SuccessorTD
from lit_mtdqn.scaling import PopArt, ReturnNormaliser
from lit_mtdqn.types import Transition

ONE = TaskInfo(name="one", observation_shape=(3,), num_actions=2)
TWO = replace(ONE, name="two", head="two")
INFOS = [ONE, TWO]
HEAD: Any = partial(SuccessorHead, cumulants=2, init_scale=1.0)
OTHER: Any = "munchausen"
TORSO = partial(MLPTorso, hidden=[6])


def _model(head: Any = HEAD, **options: Any) -> MultiTaskDQN:
    torch.manual_seed(0)
    network = partial(QNetwork, torso=TORSO, head=head)
    given: dict[str, Any] = {"scale": None, "objective": SuccessorTD, **options}
    return MultiTaskDQN(INFOS, network, **given)


def _batch(rows: int = 4, seed: int = 0) -> Transition:
    batch = random_batch(INFOS, rows, seed)
    cumulants = torch.randn(2, rows, 2, generator=torch.Generator().manual_seed(seed + 100))
    return batch._replace(extra={"cumulants": cumulants})


def _own(output: Tensor, action: Tensor) -> Tensor:
    """Return the psi of each row's action, by a loop."""
    groups, rows = action.shape
    found = [[output[g, b, action[g, b], 1:] for b in range(rows)] for g in range(groups)]
    return torch.stack([torch.stack(row) for row in found]).detach()


@pytest.mark.parametrize("bootstrap", ["double", "max"])
def test_the_target_is_what_was_gathered_and_what_the_best_of_all_policies_will(
    bootstrap: Any,
) -> None:
    model, batch = _model(objective=partial(SuccessorTD, bootstrap=bootstrap)), _batch()
    for network in (model.network, model.target_network):
        for parameter in network.head.parameters():
            torch.nn.init.normal_(parameter)
    following = model.target_network(batch.next_observation, batch.task).output
    chooser = model.network if bootstrap == "double" else model.target_network
    action = chooser(batch.next_observation, batch.task).output[..., 0].argmax(-1)
    gathered = batch.discount.unsqueeze(-1) * _own(following, action)
    expected = batch.extra["cumulants"] + gathered
    assert_table(model.target(batch), expected)
    losses = model.losses(batch)
    predicted = model.network(batch.observation, batch.task).output
    square = (expected - _own(predicted, batch.action)).square().sum(-1)
    assert_table(losses.td.detach(), 0.5 * square)
    assert_table(losses.td_error, square.sqrt())


@pytest.mark.parametrize("bootstrap", ["double", "max"])
def test_each_policy_learns_from_all_tasks_as_if_their_rows_were_its_own(bootstrap: Any) -> None:
    models = {
        experience: _model(
            objective=partial(SuccessorTD, bootstrap=bootstrap, experience=experience)
        )
        for experience in ("own", "all")
    }
    for model in models.values():
        generator = torch.Generator().manual_seed(0)
        for network in (model.network, model.target_network):
            for parameter in network.head.parameters():
                torch.nn.init.normal_(parameter, generator=generator)
    batch = _batch()
    as_own = models["own"].losses(batch)
    as_others = models["own"].losses(batch._replace(task=batch.task.flip(0)))
    found = models["all"].losses(batch)
    assert_table(found.td.detach(), 0.5 * (as_own.td + as_others.td).detach())
    assert torch.equal(found.td_error, as_own.td_error)
    torch.autograd.backward(found.td.sum())
    torch.autograd.backward(0.5 * (as_own.td + as_others.td).sum())
    pairs = zip(models["all"].network.parameters(), models["own"].network.parameters(), strict=True)
    for one, other in pairs:
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)


def test_a_policy_that_nothing_else_learns_has_no_others() -> None:
    infos = [ONE, replace(TWO, learns=False), replace(ONE, name="again")]
    head = SuccessorHead(infos, 6, cumulants=2, weights={"two": [1.0, 0.0]})
    assert head.other_policies.shape == (3, 0)


def test_policies_are_taught_by_tasks_that_have_another_head() -> None:
    infos = [
        ONE,
        TWO,
        replace(ONE, name="again"),
        replace(ONE, name="held", learns=False, head="x"),
    ]
    head = SuccessorHead(infos, 6, cumulants=2, weights={"held": [1.0, 0.0]})
    # "again" speaks for the head of "one".
    assert head.policies.tolist() == [1, 2]
    assert head.other_policies.tolist() == [[1], [2], [1], [1]]


def test_rewards_do_not_matter_to_what_is_gathered() -> None:
    model, batch = _model(), _batch()
    other = batch._replace(reward=batch.reward + 100.0)
    assert torch.equal(model.target(other), model.target(batch))


def test_weights_are_learned_from_rewards_unless_they_are_given() -> None:
    head = partial(HEAD, weights={"two": [3.0, -1.0]})
    model = _model(head, objectives=[RewardRegression], optimizer=partial(Adam, lr=0.05))
    batch, worth = _batch(64), torch.tensor([0.5, -2.0])
    batch = batch._replace(reward=batch.extra["cumulants"] @ worth)
    learning = Standalone(model)
    first = learning.update(batch)[0].auxiliary["reward_regression"]
    assert_table(first[0], 0.5 * batch.reward[0].square() * batch.weight[0])
    assert not first[1].any()
    learning.update(*[batch] * 300)
    learned = model.network.head
    assert isinstance(learned, SuccessorHead)
    weights = learned.weights(torch.arange(2)).detach()
    torch.testing.assert_close(weights[0], worth, atol=1e-2, rtol=0)
    assert_table(weights[1], [3.0, -1.0])


def test_it_learns_alike_under_a_balancer_of_gradients() -> None:
    weights = []
    for balancer in (None, partial(Aggregated, aggregator=aggregation.Mean)):
        model = _model(balancer=balancer, objectives=[RewardRegression], max_grad_norm=None)
        Standalone(model).update(*[_batch(seed=seed) for seed in range(3)])
        weights.append(torch.cat([p.detach().flatten() for p in model.network.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


GATHERING = TaskSpec(env="lit_mtdqn/Gathering-v0", cumulants_key="cumulants")


def test_a_task_that_is_never_played_is_played_by_what_the_others_learned(tmp_path: Path) -> None:
    far = replace(GATHERING, kwargs={"worth": [1.0, -1.0]}, acts=False, learns=False)
    tasks = {"one": GATHERING, "two": replace(GATHERING, kwargs={"worth": [0.0, 1.0]}), "far": far}
    head = partial(SuccessorHead, cumulants=2, weights={"far": [1.0, -1.0]})
    data = small_data(tasks, eval_max_steps=5)
    network = partial(QNetwork, torso=TORSO, head=head)
    model = MultiTaskDQN(
        data.task_infos, network, SuccessorTD, objectives=[RewardRegression], scale=None
    )
    trainer = fit(data, model, log_every_n_steps=1)
    metrics = trainer.callback_metrics
    assert {"train/reward_regression", "train/td_loss/two", "val/score/held_out"} <= metrics.keys()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = MultiTaskDQN.load_from_checkpoint(tmp_path / "last.ckpt")
    observation, task = torch.rand(3, 2, 20), torch.arange(3)
    expected = model.action_values(observation, task)
    assert torch.equal(loaded.action_values(observation, task), expected)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"objective": TD}, "objective"),
        ({"head": LinearHead}, "head"),
        ({"head": LinearHead, "objective": TD, "objectives": [RewardRegression]}, "head"),
        ({"scale": PopArt}, "head"),
        ({"scale": ReturnNormaliser}, "scale"),
        ({"objective": partial(SuccessorTD, bootstrap=OTHER)}, "bootstrap"),
        ({"objective": partial(SuccessorTD, experience=OTHER)}, "experience"),
        ({"objectives": [partial(RewardRegression, weight=0.0)]}, "RewardRegression.weight"),
    ],
    ids=str,
)
def test_parts_that_do_not_go_together_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        _model(**options)


def test_tasks_that_would_never_learn_what_rewards_are_worth_are_refused_before_any_step() -> None:
    tasks = {"one": GATHERING, "two": GATHERING}
    given = {"one": [1.0, 0.0], "two": [0.0, 1.0]}
    cases: list[tuple[Any, Any, str]] = [
        (MultiTaskDQN, {"one": [1.0, 0.0]}, "head.weights"),
        (DQN, None, "head.weights"),
        (MultiTaskDQN, given, "tasks.cumulants_key"),
    ]
    for kind, weights, name in cases:
        key = "cumulants" if name == "head.weights" else None
        data = small_data({n: replace(spec, cumulants_key=key) for n, spec in tasks.items()})
        network = partial(QNetwork, torso=TORSO, head=partial(HEAD, weights=weights))
        model = kind(data.task_infos, network, SuccessorTD, scale=None)
        with pytest.raises(ValueError, match=complaint(name)):
            fit(data, model)
        assert data.clock.total_env_steps == 0


@pytest.mark.parametrize(("change", "name"), [({"gamma": 0.5}, "gamma"), ({"n_step": 2}, "n_step")])
def test_policies_learn_from_other_tasks_only_what_would_be_their_own(
    change: dict[str, Any], name: str
) -> None:
    gathering = replace(GATHERING, cumulants_key="cumulants")
    tasks = {"one": gathering, "two": replace(gathering, **change)}
    weights = {"one": [1.0, 0.0], "two": [0.0, 1.0]}
    network = partial(QNetwork, torso=TORSO, head=partial(HEAD, weights=weights))
    data = small_data(tasks)
    objective = partial(SuccessorTD, experience="all")
    with pytest.raises(ValueError, match=complaint(f"tasks.{name}")):
        fit(data, MultiTaskDQN(data.task_infos, network, objective, scale=None))
    assert data.clock.total_env_steps == 0
    data = small_data(tasks)
    fit(data, MultiTaskDQN(data.task_infos, network, SuccessorTD, scale=None))
    assert data.clock.total_env_steps > 0


def test_transitions_must_hold_as_many_cumulants_as_are_predicted() -> None:
    model, batch = _model(), _batch()
    with pytest.raises(ValueError, match=complaint("tasks.cumulants_key")):
        model.losses(batch._replace(extra={}))
    wide = {"cumulants": torch.zeros(2, 4, 3)}
    with pytest.raises(ValueError, match=complaint("head.cumulants")):
        model.losses(batch._replace(extra=wide))
