from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from helpers.batches import random_batch
from helpers.distributed_balancing import INFOS, ROWS, GivenData
from helpers.runs import quiet_trainer, small_data, small_model
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torchjd import aggregation

from lit_mtdqn import Adam, MultiTaskDQN
from lit_mtdqn.balancing import Aggregated, IndependentSteps
from lit_mtdqn.callbacks import PartLearningRates, TargetNetworkSync
from lit_mtdqn.networks import Columns, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.networks.parts import names_of_parts
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import Clock, Linear, Transition

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
# Of 6 and 5 units, none of which is ever without gradient.
NETWORK = partial(
    QNetwork,
    torso=partial(MLPTorso, hidden=[6, 5], activation=nn.LeakyReLU),
    head=partial(LinearHead, init_scale=1.0),
)
SGD = partial(torch.optim.SGD, lr=0.1)
ADAM = partial(Adam, lr=0.01)
# Decay added to the gradient, which reaches moments, and decay of the weights themselves.
DECAYS: dict[str, Any] = {
    "coupled": partial(Adam, lr=0.01, weight_decay=0.1),
    "decoupled": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=0.1),
}
State = dict[str, Tensor]


class Given(GivenData):
    """Minibatches that are the same at every fit, six an epoch, and a clock that goes on."""

    def state_dict(self) -> dict[str, Any]:
        return self.clock.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock.load_state_dict(state_dict)


class Watch(Callback):
    """Notes weights, target weights and moments at the start and after every update."""

    def __init__(self) -> None:
        self.weights: list[State] = []
        self.targets: list[State] = []
        self.moments: list[State] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.note(trainer, pl_module)

    def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
        self.note(trainer, learner)

    def note(self, trainer: Any, learner: Any) -> None:
        for kept, network in (
            (self.weights, learner.network),
            (self.targets, learner.target_network),
        ):
            kept.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        state, (optimizer,) = {}, trainer.optimizers
        for name, parameter in learner.named_parameters():
            for kind, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    state[f"{name}.{kind}"] = value.clone()
        self.moments.append(state)

    def change(self, update: int = 1) -> State:
        """Return what an update has added to each saved tensor."""
        before, after = self.weights[update - 1 : update + 1]
        return {name: after[name] - before[name] for name in after}


def _run(
    *callbacks: Callback, epochs: int = 1, resumed: Any = None, save: Any = None, **options: Any
) -> tuple[Watch, MultiTaskDQN]:
    """Make six updates per epoch of a network with two heads; without PopArt and clipping."""
    torch.manual_seed(0)
    trainer_options = {k: options.pop(k) for k in ("precision", "plugins") if k in options}
    given: dict[str, Any] = {"optimizer": SGD, "scale": None, "max_grad_norm": None, **options}
    model, watch = MultiTaskDQN(INFOS, given.pop("network", NETWORK), **given), Watch()
    trainer = quiet_trainer(
        *callbacks, watch, max_epochs=epochs, log_every_n_steps=1, **trainer_options
    )
    trainer.fit(model, Given(), ckpt_path=resumed)
    if save is not None:
        trainer.save_checkpoint(save)
    return watch, model


def _of(state: State, model: MultiTaskDQN, *parts: str) -> State:
    return {n: state[n] for n in names_of_parts(model.network, parts, None, "test")}


def _moved(watch: Watch) -> set[str]:
    """Return the tensors that training has changed."""
    first, last = watch.weights[0], watch.weights[-1]
    return {name for name in first if not torch.equal(first[name], last[name])}


def _norm(state: State) -> float:
    return float(torch.cat([tensor.flatten() for tensor in state.values()]).norm())


@pytest.mark.parametrize(
    ("parts", "learn"),
    [
        ({"trunk": 0.0}, ["heads"]),
        ({"heads": 0.0}, ["trunk"]),
        ({"head.values.wide": 0.0}, ["trunk", "head.values.narrow"]),
        ({"torso.layers.0": 0.0}, ["torso.layers.2", "heads"]),
        ({"all": 0.0, "head.values.wide": 1.0}, ["head.values.wide"]),
        ({"torso.layers.2.bias": 0.0, "heads": 0.0}, ["torso.layers.0", "torso.layers.2.weight"]),
    ],
    ids=str,
)
def test_frozen_parts_stay_and_the_others_learn(parts: Any, learn: list[str]) -> None:
    watch, model = _run(PartLearningRates(parts), optimizer=ADAM)
    assert _moved(watch) == set(names_of_parts(model.network, learn, None, "test"))


@pytest.mark.parametrize("optimizer", DECAYS)
def test_a_frozen_head_keeps_its_moments_under_weight_decay(optimizer: str) -> None:
    parts: Any = {"head.values.wide": Linear(1.0, 0.0, 1, begin=2), "torso.layers.0": 0.0}
    watch, _ = _run(PartLearningRates(parts), optimizer=DECAYS[optimizer])
    learned, last = watch.moments[3], watch.moments[-1]
    assert len(learned) >= 3
    numbers = {name: moment for name, moment in learned.items() if moment.dim() > 0}
    for name, moment in numbers.items():
        assert not name.startswith("network.torso.layers.0")
        if name.startswith("network.head.values"):
            # Rows by name: narrow, wide.
            assert moment[1].any()
            assert torch.equal(last[name][1], moment[1])
            assert not torch.equal(last[name][0], moment[0])
    for name, tensor in watch.weights[3].items():
        if "wide" in name or "layers.0" in name:
            assert torch.equal(watch.weights[-1][name], tensor)
    assert all(not torch.equal(watch.weights[2][n], watch.weights[3][n]) for n in _wide(watch))


def _wide(watch: Watch) -> list[str]:
    return [name for name in watch.weights[0] if "wide" in name]


@pytest.mark.parametrize("optimizer", DECAYS)
def test_a_head_that_never_learned_has_moments_of_zero(optimizer: str) -> None:
    watch, _ = _run(PartLearningRates({"head.values.wide": 0.0}), optimizer=DECAYS[optimizer])
    stacks = {n: m for n, m in watch.moments[-1].items() if "head" in n and m.dim() > 0}
    assert stacks
    assert all(moment[0].any() and not moment[1].any() for moment in stacks.values())


def test_a_frozen_head_leaves_what_the_other_one_learns_as_it_is() -> None:
    both, _ = _run(PartLearningRates({"trunk": 0.0}), optimizer=DECAYS["decoupled"])
    parts = {"trunk": 0.0, "head.values.wide": 0.0}
    one, model = _run(PartLearningRates(parts), optimizer=DECAYS["decoupled"])
    ends = [_of(watch.weights[-1], model, "head.values.narrow") for watch in (both, one)]
    assert_equal_tensors(*ends)


@pytest.mark.parametrize("optimizer", DECAYS)
@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_a_factor_is_one_on_the_learning_rate(optimizer: str, factor: float) -> None:
    make = DECAYS[optimizer]
    held, model = _run(PartLearningRates({"all": factor}), optimizer=make)
    other, _ = _run(optimizer=partial(make.func, **{**make.keywords, "lr": 0.01 * factor}))
    for name, tensor in other.weights[-1].items():
        torch.testing.assert_close(held.weights[-1][name], tensor, rtol=1e-4, atol=1e-6)
    assert model.learning_rate == 0.01


def test_each_row_of_a_stack_has_its_own_factor() -> None:
    parts = {"head.values.wide": 0.5, "head.values.narrow": 2.0, "torso.layers.0": 0.25}
    plain, held = _run()[0].change(), _run(PartLearningRates(parts))[0].change()
    for name, change in plain.items():
        factor = next((f for part, f in parts.items() if name.startswith(part)), 1.0)
        torch.testing.assert_close(held[name], factor * change, rtol=1e-3, atol=1e-7)


def test_of_overlapping_parts_the_last_counts_and_instances_multiply() -> None:
    over = {"all": 0.0, "trunk": 0.5, "torso.layers.0": 2.0}
    callbacks = PartLearningRates(over), PartLearningRates({"trunk": 0.5}, layers=1)
    plain, held = _run()[0].change(), _run(*callbacks)[0].change()
    factors = {"torso.layers.0": 2.0 * 0.5, "torso.layers.2": 0.5, "head": 0.0}
    for name, change in plain.items():
        factor = next(f for part, f in factors.items() if name.startswith(part))
        torch.testing.assert_close(held[name], factor * change, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("frozen", ["trunk", "head.values.wide", "torso.layers.2.bias"])
def test_clipping_does_not_count_what_is_frozen(frozen: str) -> None:
    watch, model = _run(PartLearningRates({frozen: 0.0}), max_grad_norm=0.01)
    assert _norm(watch.change()) == pytest.approx(0.1 * 0.01, rel=1e-3)
    change = _run(max_grad_norm=0.01)[0].change()
    assert _norm(change) == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert _norm(_of(change, model, frozen)) > 0.1 * 0.1 * 0.01


def test_a_part_thaws_at_its_update_with_a_count_of_steps_of_its_own() -> None:
    watch, _ = _run(PartLearningRates({"trunk": Linear(0.0, 1.0, 1, begin=3)}), optimizer=ADAM)
    assert all(not watch.change(update)["torso.layers.0.weight"].any() for update in range(1, 5))
    assert all(watch.change(update)["torso.layers.0.weight"].any() for update in (5, 6))
    assert watch.moments[-1]["network.torso.layers.0.weight.step"] == 2
    assert watch.moments[-1]["network.head.values.weight.step"] == 6
    # Adam's first step is as long as the learning rate.
    assert float(watch.change(5)["torso.layers.0.weight"].abs().max()) <= 0.0101


@pytest.mark.parametrize("balancer", [None, IndependentSteps], ids=["equal", "independent"])
def test_a_resumed_run_freezes_and_thaws_as_if_it_had_not_been_interrupted(
    balancer: Any, tmp_path: Path
) -> None:
    def parts() -> PartLearningRates:
        fading = {
            "head.values.wide": Linear(1.0, 0.0, 1, begin=3),
            "torso.layers.2": Linear(0.0, 1.0, 1, begin=7),
        }
        return PartLearningRates({"torso.layers.0": Linear(0.0, 1.0, 8, begin=2), **fading})

    options = {"optimizer": DECAYS["decoupled"], "balancer": balancer, "scale": PopArt}
    whole, _ = _run(parts(), epochs=2, **options)
    path = str(tmp_path / "half.ckpt")
    _run(parts(), epochs=1, save=path, **options)
    rest, _ = _run(parts(), epochs=2, resumed=path, **options)
    assert len(whole.weights) == 13
    assert len(rest.weights) == 7
    for found, expected in zip(rest.weights, whole.weights[6:], strict=True):
        assert_equal_tensors(found, expected)
    assert_equal_tensors(rest.moments[-1], whole.moments[-1])


def test_a_target_network_copies_what_is_left_of_an_update() -> None:
    watch, _ = _run(TargetNetworkSync(1), PartLearningRates({"all": 0.5, "trunk": 0.0}))
    for weights, targets in zip(watch.weights[1:], watch.targets[1:], strict=True):
        assert_equal_tensors(targets, weights)


def test_popart_rewrites_a_frozen_head_and_its_raw_values_stay() -> None:
    parts: Any = {"trunk": 0.0, "head.values.wide": Linear(1.0, 0.0, 1, begin=2)}
    values: list[Tensor] = []

    class Ask(Callback):
        def on_update_end(self, trainer: Any, learner: Any, clock: Clock) -> None:
            values.append(learner.action_values(observation, torch.tensor([0, 1])))

    observation = random_batch(INFOS, seed=9).observation
    options = {"optimizer": DECAYS["coupled"], "scale": partial(PopArt, step_size=0.3)}
    watch, model = _run(PartLearningRates(parts), Ask(), **options)
    wide, narrow = zip(*(value.unbind() for value in values), strict=True)
    assert not torch.allclose(wide[1], wide[2])
    torch.testing.assert_close(wide[-1], wide[2])
    assert not torch.allclose(narrow[-1][..., :2], narrow[2][..., :2])
    name = "head.values.wide.weight"
    assert not torch.allclose(watch.weights[-1][name], watch.weights[3][name])
    for kind in ("exp_avg", "exp_avg_sq"):
        name = f"network.head.values.weight.{kind}"
        assert torch.equal(watch.moments[-1][name][1], watch.moments[3][name][1])
    assert isinstance(model.scale, PopArt)


def test_mixed_precision_freezes_to_the_last_bit() -> None:
    parts = {"torso.layers.0": 0.0, "head.values.wide": 0.0}
    watch, model = _run(PartLearningRates(parts), precision="bf16-mixed", optimizer=ADAM)
    learn = names_of_parts(model.network, ["torso.layers.2", "head.values.narrow"], None, "test")
    assert _moved(watch) == set(learn)


def test_a_scaler_of_losses_may_skip_steps() -> None:
    # Of six, two overflow and are no updates; then losses are scaled by what is left.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-60)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    parts = {"torso.layers.0": 0.0, "head.values.wide": 0.0, "torso.layers.2": 0.5}
    watch, model = _run(PartLearningRates(parts), plugins=plugin, optimizer=DECAYS["coupled"])
    learn = names_of_parts(model.network, ["torso.layers.2", "head.values.narrow"], None, "test")
    changes = [{n for n, c in watch.change(u).items() if c.any()} for u in range(1, 5)]
    assert changes == [set(learn)] * 4
    assert len(watch.weights) == 5


def test_columns_that_are_pulled_together_leave_a_frozen_one_where_it_is() -> None:
    network = partial(NETWORK, sharing=partial(Columns, coupling="pull", strength=0.5))
    watch, model = _run(PartLearningRates({"sharing.columns.wide": 0.0}), network=network)
    learn = ["sharing.columns.narrow", "heads"]
    assert _moved(watch) == set(names_of_parts(model.network, learn, None, "test"))


def _rows(model: MultiTaskDQN, batch: Transition) -> Tensor:
    return model.task_gradients(batch).by_task


class First(Callback):
    """Notes the tasks' gradients of the first update."""

    def __init__(self) -> None:
        self.rows = torch.zeros(0)
        self.frozen = torch.zeros(0)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # Behind the callback that holds back.
        self.rows = _rows(pl_module, random_batch(INFOS, ROWS, 0))
        names = [n for n, _ in pl_module.network.named_parameters() if not n.startswith("head")]
        sizes = {n: p.numel() for n, p in pl_module.network.named_parameters()}
        self.frozen = torch.cat([torch.full((sizes[n],), "layers.0" in n) for n in names])


def test_aggregators_compare_what_tasks_share_and_learn() -> None:
    first, parts = First(), PartLearningRates({"torso.layers.0": 0.0})
    balancer = partial(Aggregated, aggregator=aggregation.MGDA)
    change = _run(parts, first, balancer=balancer)[0].change()
    learned = first.rows[:, ~first.frozen]
    expected = -0.1 * aggregation.MGDA()(learned)
    counted = -0.1 * aggregation.MGDA()(first.rows)[~first.frozen]
    found = torch.cat([change[f"torso.layers.2.{name}"].flatten() for name in ("weight", "bias")])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(found, counted, rtol=1e-2)
    assert not change["torso.layers.0.weight"].any()


def test_a_later_fit_without_it_learns_everything() -> None:
    balancer = partial(Aggregated, aggregator=aggregation.PCGrad)
    frozen, model = _run(PartLearningRates({"torso.layers.0": 0.0}), balancer=balancer)
    watch = Watch()
    quiet_trainer(watch, max_epochs=1, log_every_n_steps=1).fit(model, Given())
    assert "torso.layers.0.weight" not in _moved(frozen)
    assert _moved(watch) == set(watch.weights[0])


def test_each_tasks_own_optimiser_keeps_the_moments_of_what_is_frozen() -> None:
    first = First()
    parts = PartLearningRates({"torso.layers.0": Linear(1.0, 0.0, 1, begin=2), "heads": 0.5})
    watch, _ = _run(parts, first, balancer=IndependentSteps, optimizer=DECAYS["coupled"])
    for kind in ("exp_avg", "exp_avg_sq"):
        then, last = (watch.moments[at][f"balancer.steps.{kind}"] for at in (3, -1))
        assert then[:, first.frozen].any()
        assert torch.equal(last[:, first.frozen], then[:, first.frozen])
        assert not torch.equal(last[:, ~first.frozen], then[:, ~first.frozen])
    for name in ("torso.layers.0.weight", "torso.layers.0.bias"):
        assert torch.equal(watch.weights[-1][name], watch.weights[3][name])
        assert not torch.equal(watch.weights[2][name], watch.weights[3][name])


def test_each_tasks_own_step_is_multiplied_and_clipped_without_what_is_frozen() -> None:
    balancer = partial(IndependentSteps, max_grad_norm=0.01)
    first, parts = First(), PartLearningRates({"torso.layers.0": 0.0, "torso.layers.2": 0.5})
    change = _run(parts, first, balancer=balancer)[0].change()
    learned = first.rows[:, ~first.frozen]
    expected = -0.1 * 0.5 * (0.01 * torch.nn.functional.normalize(learned)).mean(0)
    found = torch.cat([change[f"torso.layers.2.{name}"].flatten() for name in ("weight", "bias")])
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-7)


def test_a_run_of_one_task_freezes_in_training_alone() -> None:
    data = small_data()
    model = small_model(data)
    trainer = quiet_trainer(PartLearningRates({"trunk": 0.0}), TargetNetworkSync(3))
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    trainer.fit(model, data)
    trainer.validate(model, data, verbose=False)
    after = model.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("head.")}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"parts": {}}, "PartLearningRates.parts"),
        ({"parts": {"trunk": -0.5}}, "PartLearningRates.parts.trunk"),
        ({"parts": {"trunk": Linear(-1.0, 1.0, 5)}}, "PartLearningRates.parts.trunk"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        PartLearningRates(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"parts": {"encoder": 0.0}}, "PartLearningRates.parts"),
        ({"parts": {"heads": 0.0}, "layers": 1}, "PartLearningRates.layers"),
        ({"parts": {"trunk": Linear(1.0, -1.0, 1)}}, "PartLearningRates.parts.trunk"),
    ],
    ids=str,
)
def test_parts_that_there_are_not_are_refused_when_a_fit_starts(
    options: dict[str, Any], name: str
) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        _run(PartLearningRates(**options))


class Normalised(MLPTorso):
    """Keeps running statistics."""

    def __init__(self, tasks: Any) -> None:
        super().__init__(tasks, hidden=[4])
        self.layers.append(nn.BatchNorm1d(4))


def test_running_statistics_are_refused() -> None:
    name = "PartLearningRates.parts.trunk"
    with pytest.raises(ValueError, match=complaint(name)) as error:
        _run(PartLearningRates({"trunk": 0.5}), network=partial(NETWORK, torso=Normalised))
    assert "running_mean" in str(error.value)
