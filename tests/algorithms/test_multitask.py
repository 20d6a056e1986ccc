from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_same_state, complaint
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.heads import ALL, IQN, each
from helpers.runs import COUNTING, NETWORK, fit, small_data
from helpers.standalone import Standalone
from torch import Tensor, nn
from torchjd import aggregation, scalarization

from lit_mtdqn import DQN, Adam, MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.balancing import (
    Aggregated,
    GradNorm,
    IndependentSteps,
    Scalarised,
    SourceGradients,
)
from lit_mtdqn.networks import Experts, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import DeepSupervision, Objective, TDLoss
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import Transition

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2, weight=3.0),
    TaskInfo(name="third", observation_shape=(3,), num_actions=3),
]
GROUPS = {"one group each": [0, 1, 2], "several groups": [2, 0, 2, 1, 0], "one task": [1]}
SGD = partial(torch.optim.SGD, lr=0.1)
LINEAR = partial(LinearHead, init_scale=1.0)
MEAN = partial(Aggregated, aggregator=aggregation.Mean)
BALANCERS: dict[str, Any] = {
    "aggregated": partial(Aggregated, aggregator=aggregation.PCGrad),
    "remembering": partial(Aggregated, aggregator=aggregation.GradVac),
    "uncertainty": partial(Scalarised, scalarizer=scalarization.UW),
    "dwa": partial(Scalarised, scalarizer=scalarization.DWA, step_every_n_updates=3),
    "famo": partial(Scalarised, scalarizer=scalarization.FAMO),
    "grad_norm": GradNorm,
    "independent": IndependentSteps,
    "source gradients": partial(SourceGradients, beta=0.5),
}
balancers = pytest.mark.parametrize("balancer", BALANCERS.values(), ids=BALANCERS.keys())


def _model(head: Any = LINEAR, infos: Any = INFOS, **options: Any) -> MultiTaskDQN:
    torch.manual_seed(0)
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=[6, 5]), head=head)
    return MultiTaskDQN(
        infos, network, **{"optimizer": SGD, "max_grad_norm": None, "scale": None, **options}
    )


def _batches(count: int, rows: int = 4) -> list[Transition]:
    return [random_batch(INFOS, rows, seed) for seed in range(count)]


def _flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _task_rows(model: MultiTaskDQN, batch: Transition, parameters: list[nn.Parameter]) -> Tensor:
    """Return the tasks' gradients by a backward pass for each."""
    by_group, _ = model.group_losses(model.losses(batch), batch)
    rows = []
    for task in sorted(set(batch.task.tolist())):
        loss = by_group[batch.task == task].mean()
        gradients = torch.autograd.grad(
            loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(_flat(gradients))
    return torch.stack(rows)


def test_without_a_balancer_it_is_dqn_on_one_scale() -> None:
    models: list[DQN] = []
    for kind in (partial(DQN, scale=PopArt), MultiTaskDQN):
        torch.manual_seed(0)
        data = small_data({"a": COUNTING, "b": TaskSpec(env=VECTOR, weight=2.0)})
        models.append(kind(data.task_infos, NETWORK))
        fit(data, models[-1])
    assert_same_state(*models)


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
@each(ALL)
def test_one_backward_pass_gives_the_gradient_of_every_task(head: Any, groups: list[int]) -> None:
    model, batch = _model(head, balancer=MEAN), random_batch(INFOS, groups=groups)
    Standalone(model)
    model.resample_noise()
    gradients = model.task_gradients(batch)
    oracle = _task_rows(model, batch, list(gradients.parameters))
    assert gradients.by_task.shape == (len(set(groups)), oracle.shape[1])
    torch.testing.assert_close(gradients.by_task, oracle)
    assert gradients.unbalanced is None


@each(ALL)
def test_the_gradients_of_tasks_are_looked_at_without_a_trace(head: Any) -> None:
    model = _model(head)
    Standalone(model)
    model.resample_noise()
    before, generator = deepcopy(model.state_dict()), torch.get_rng_state()
    model.task_gradients(_batches(1)[0])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("norm", [None, 0.05])
@each({name: ALL[name] for name in ("linear", "hidden dueling c51", "noisy hidden implicit")})
def test_the_mean_of_gradients_is_equal_weights(head: Any, norm: Any, optimizer: Any) -> None:
    models = [
        _model(head, balancer=balancer, max_grad_norm=norm, optimizer=optimizer)
        for balancer in (
            None,
            MEAN,
            partial(Scalarised, scalarizer=scalarization.Mean, floor=0.0),
        )
    ]
    stepping = [Standalone(model) for model in models]
    for batch in _batches(5):
        for one in stepping:
            torch.manual_seed(int(batch.observation[0, 0, 0] * 1e6))
            one.update(batch)
        equal, *others = (_flat(model.network.parameters()) for model in models)
        for other in others:
            torch.testing.assert_close(other, equal, rtol=1e-4, atol=1e-5)


def test_layers_of_single_heads_keep_the_gradient_of_their_task() -> None:
    model, batch = _model(balancer=BALANCERS["aggregated"]), _batches(1)[0]
    runner = Standalone(model)
    own = list(model.network.head.parameters())
    expected = torch.autograd.grad(model.total_loss(model.losses(batch), batch), own)
    runner.update(batch)
    for parameter, gradient in zip(own, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_gradient_of_all_parameters_is_clipped_after_balancing() -> None:
    model = _model(balancer=BALANCERS["aggregated"], max_grad_norm=0.01)
    Standalone(model).update(*_batches(1))
    norm = _flat(p.grad for p in model.network.parameters()).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_a_scalarisers_parameters_get_the_gradient_of_one_update() -> None:
    model = _model(balancer=BALANCERS["uncertainty"])
    runner, (first, second) = Standalone(model), _batches(2)
    runner.update(first)
    assert isinstance(model.balancer, Scalarised)
    (log_var,) = model.balancer.parameters()
    spread = torch.exp(-log_var.detach())
    loss, _ = model.group_losses(model.losses(second), second)
    runner.update(second)
    expected = 0.5 - 0.5 * spread * (loss.detach() + model.balancer.floor)
    torch.testing.assert_close(log_var.grad, expected)


def test_a_balancers_parameters_are_a_group_of_their_own() -> None:
    model = _model(balancer=partial(GradNorm, lr=0.7), optimizer=torch.optim.AdamW)
    groups = model.configure_optimizers().param_groups
    assert isinstance(model.balancer, GradNorm)
    assert groups[-1]["params"] == [model.balancer.log_weight]
    assert (groups[-1]["lr"], groups[-1]["initial_lr"]) == (0.7, 0.7)
    assert groups[-1]["weight_decay"] == 0.0
    networks = {id(p) for group in groups[:-1] for p in group["params"]}
    assert networks == {id(parameter) for parameter in model.network.parameters()}


class Anchored(Objective):
    """Pulls all outputs to zero, and one task alone, by terms of every shape."""

    def __init__(self, tasks: Any, network: QNetwork) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, batch: Transition, td: TDLoss, target_network: QNetwork) -> dict[str, Tensor]:
        output = td.prediction.output
        return {
            "added": self.gain * output.square().mean(),
            "rows": 0.5 * output.square().mean(-1),
            "groups": output.mean((1, 2)),
        }


@pytest.mark.parametrize("balancer", [None, MEAN])
def test_terms_are_balanced_or_added_by_their_shape(balancer: Any) -> None:
    model = _model(balancer=balancer, objectives=[Anchored])
    runner, batch = Standalone(model), _batches(1)[0]
    parameters = [*model.network.parameters(), *model.objectives.parameters()]
    output = model.network(batch.observation, batch.task).output
    td = (model.objective(batch, model.network, model.target_network).loss * batch.weight).mean(-1)
    by_task = td + 0.5 * output.square().mean((1, 2)) + output.mean((1, 2))
    weighted = by_task * torch.tensor([1.0, 3.0, 1.0])
    anchored = model.objectives[0]
    assert isinstance(anchored, Anchored)
    added = anchored.gain * output.square().mean()
    expected = torch.autograd.grad(weighted.mean() + added, parameters)
    (losses,) = runner.update(batch)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert losses.auxiliary.keys() == {"added", "rows", "groups"}
    assert not any(term.requires_grad for term in losses.auxiliary.values())


def test_what_is_added_is_out_of_an_aggregators_sight() -> None:
    model = _model(balancer=BALANCERS["aggregated"], objectives=[Anchored])
    runner, batch = Standalone(model), _batches(1)[0]
    shared = list(model._shared.values())
    rows = _task_rows(model, batch, shared)
    _, added = model.group_losses(model.losses(batch), batch)
    assert added is not None
    extra = _flat(torch.autograd.grad(added, shared))
    torch.manual_seed(3)
    expected = aggregation.PCGrad()(rows) + extra
    torch.manual_seed(3)
    runner.update(batch)
    torch.testing.assert_close(_flat(p.grad for p in shared), expected)


@balancers
def test_balancers_learn_in_a_run(balancer: Any) -> None:
    data = small_data({"a": COUNTING, "b": TaskSpec(env=VECTOR, weight=2.0)})
    torch.manual_seed(0)
    model = MultiTaskDQN(data.task_infos, NETWORK, balancer=balancer)
    before = [parameter.detach().clone() for parameter in model.network.parameters()]
    trainer = fit(data, model, log_every_n_steps=1)
    pairs = zip(model.network.parameters(), before, strict=True)
    assert all((now != then).any() for now, then in pairs)
    logged = trainer.callback_metrics.items()
    weights = [value for name, value in logged if name.startswith("train/task_weight/")]
    assert model.balancer is not None
    assert len(weights) == (0 if model.balancer.task_weights() is None else 2)
    assert sum(map(float, weights)) == pytest.approx(len(weights))


@balancers
def test_a_resumed_run_goes_on_as_it_would_have(balancer: Any) -> None:
    batches = _batches(9)
    options = {"balancer": balancer, "optimizer": Adam}
    whole = Standalone(_model(**options))
    whole.update(*batches[:5])
    saved = deepcopy(whole.model.state_dict()), deepcopy(whole.optimizer.optimizer.state_dict())
    resumed = Standalone(_model(**options))
    resumed.model.load_state_dict(saved[0])
    resumed.optimizer.optimizer.load_state_dict(saved[1])
    for runner in (whole, resumed):
        torch.manual_seed(1)
        runner.update(*batches[5:])
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@balancers
def test_a_saved_learner_is_rebuilt_from_its_checkpoint_alone(
    balancer: Any, tmp_path: Path
) -> None:
    data = small_data({"a": COUNTING, "b": COUNTING})
    supervision = partial(DeepSupervision, weights=[0.3])
    model = MultiTaskDQN(
        data.task_infos,
        partial(QNetwork, torso=partial(MLPTorso, hidden=[8, 6])),
        balancer=balancer,
        objectives=[supervision],
    )
    path = tmp_path / "last.ckpt"
    fit(data, model).save_checkpoint(path)
    loaded = MultiTaskDQN.load_from_checkpoint(path)
    assert str(loaded) == str(model)
    assert dict(loaded.hparams) == dict(model.hparams)
    assert str(loaded.configure_optimizers()) == str(model.configure_optimizers())
    pairs = zip(loaded.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    batch = random_batch(data.task_infos)
    assert torch.equal(loaded.losses(batch).td, model.losses(batch).td)


@pytest.mark.parametrize("head", [LINEAR, partial(IQN, init_scale=1.0)], ids=["linear", "implicit"])
@pytest.mark.parametrize("name", ["Mean", "PCGrad", "MGDA", "AlignedMTL"])
def test_bf16_gradients_are_aggregated_near_those_of_float32(name: str, head: Any) -> None:
    # 8 bits of mantissa: every product is off by up to 2 ** -8, and layers add up. Where tasks
    # conflict the result is shorter than what it is made of, so errors are measured by the latter.
    aggregator = getattr(aggregation, name)
    model, batch = (
        _model(head, INFOS[:2], balancer=partial(Aggregated, aggregator=aggregator)),
        (random_batch(INFOS[:2], 64)),
    )
    runner = Standalone(model)
    before = deepcopy(model.state_dict())
    rows, found = [], []
    for enabled in (False, True):
        model.load_state_dict(before)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            torch.manual_seed(0)
            model.resample_noise()
            rows.append(model.task_gradients(batch).by_task)
            torch.manual_seed(0)
            runner.update(batch)
        gradients = [parameter.grad for parameter in model._shared.values()]
        assert all(g is not None and g.dtype == torch.float32 for g in gradients)
        found.append(_flat(gradients))
    exact, rounded = found
    assert not torch.equal(exact, rounded)
    assert float((rows[1] - rows[0]).norm() / rows[0].norm()) < 0.05
    assert float((rounded - exact).norm() / rows[0].norm()) < 0.05
    torch.testing.assert_close(rounded, aggregator()(rows[1]))


def test_gradients_are_not_rounded_again_on_their_way_back() -> None:
    model, batch = _model(infos=INFOS[:2]), random_batch(INFOS[:2])
    runner = Standalone(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.total_loss(model.losses(model.in_own_unit(batch)), batch)
        runner.update(batch)
    found = [parameter.grad for parameter in model.network.parameters()]
    # From the same graph, and after autocast.
    expected = torch.autograd.grad(loss, list(model.network.parameters()))
    for gradient, other in zip(found, expected, strict=True):
        assert gradient is not None
        assert torch.equal(gradient, other)


class Apart(QNetwork):
    """Shares nothing."""

    def shared_parameters(self) -> list[nn.Parameter]:
        return []


def test_a_network_that_shares_nothing_has_no_gradients_to_combine() -> None:
    model = MultiTaskDQN(INFOS, Apart, balancer=MEAN)
    with pytest.raises(ValueError, match=complaint("model.network")):
        Standalone(model)
    Standalone(MultiTaskDQN(INFOS, Apart, balancer=BALANCERS["uncertainty"]))


def test_scaled_losses_are_refused_where_gradients_are_combined() -> None:
    model = _model(balancer=MEAN)
    runner = Standalone(model)
    model.trainer.precision_plugin.scaler = object()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"^`trainer.precision` must scale no losses"):
        model.on_fit_start()
    del runner


@pytest.mark.parametrize("name", ["uncertainty", "grad_norm", "independent"])
def test_balancers_that_compare_tasks_need_them_all(name: str) -> None:
    runner = Standalone(_model(balancer=BALANCERS[name]))
    with pytest.raises(ValueError, match=complaint("data.sampler")):
        runner.update(random_batch(INFOS, groups=[0, 2, 0]))


def test_a_task_that_does_not_learn_is_no_task_of_a_balancer() -> None:
    watched = TaskInfo(name="watched", observation_shape=(3,), num_actions=2, learns=False)
    infos = [INFOS[0], watched, INFOS[2]]
    model = _model(infos=infos, balancer=BALANCERS["uncertainty"])
    Standalone(model).update(random_batch(infos, groups=[0, 2]))
    assert model.further_metrics().keys() == {"train/task_weight/wide", "train/task_weight/third"}


def test_an_aggregator_gets_the_tasks_that_a_batch_has() -> None:
    model = _model(balancer=BALANCERS["aggregated"])
    runner, batch = Standalone(model), random_batch(INFOS, groups=[2, 0, 2])
    shared = list(model._shared.values())
    rows = _task_rows(model, batch, shared)
    assert len(rows) == 2
    runner.update(batch)
    torch.testing.assert_close(_flat(p.grad for p in shared), aggregation.PCGrad()(rows))


@balancers
@pytest.mark.parametrize(
    "infos",
    [
        INFOS[::-1],
        [*INFOS, TaskInfo(name="new", observation_shape=(3,), num_actions=2)],
        INFOS[:-1],
    ],
    ids=["reordered", "added", "removed"],
)
def test_a_balancer_begins_anew_with_other_tasks_and_heads_follow_their_names(
    balancer: Any, infos: list[TaskInfo]
) -> None:
    model = _model(balancer=balancer)
    for parameter in model.parameters():
        parameter.data.add_(1)
    torch.manual_seed(0)
    other = _model(infos=infos, balancer=balancer)
    fresh = deepcopy(other.balancer)
    with pytest.warns(UserWarning, match="begins anew for the tasks"):
        other.load_state_dict(deepcopy(model.state_dict()), strict=False)
    assert other.balancer is not None
    assert fresh is not None
    assert_same_state(other.balancer, fresh)
    observation = random_batch(INFOS, groups=[0]).observation
    places = [[info.name for info in tasks].index(INFOS[0].name) for tasks in (INFOS, infos)]
    models = zip((model, other), places, strict=True)
    values = [m.action_values(observation, torch.tensor([place])) for m, place in models]
    torch.testing.assert_close(values[0][..., :2], values[1][..., :2])


@balancers
def test_a_balancer_goes_on_with_the_same_tasks(balancer: Any) -> None:
    model, other = _model(balancer=balancer), _model(balancer=balancer)
    assert model.balancer is not None
    for parameter in model.balancer.parameters():
        parameter.data.add_(1)
    other.load_state_dict(model.state_dict())
    assert_same_state(model, other)


def test_losses_after_an_update_are_seen_with_the_noise_that_it_had() -> None:
    sharing = partial(Experts, num_experts=3, router="gumbel")
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=[6, 5]), sharing=sharing)
    model = MultiTaskDQN(INFOS, network, scale=None)
    batch = random_batch(INFOS, groups=[0, 1, 2])
    model.network.train()
    model.resample_noise()
    before = model._task_losses(model.losses(batch), batch).loss
    after = model.task_losses_of(batch).loss
    assert not after.requires_grad
    assert torch.equal(after, before.detach())
