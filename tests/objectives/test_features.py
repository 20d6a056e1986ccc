"""Students of what teachers see."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, assert_same_state, assert_table, complaint
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import fit, quiet_trainer, small_data
from helpers.standalone import Standalone
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchjd import aggregation

from lit_mtdqn import MultiTaskDQN, PolicyDistillation, TaskInfo, TaskSpec
from lit_mtdqn.algorithms.teachers import Teachers
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.networks import (
    Columns,
    Experts,
    LinearHead,
    MinAtarTorso,
    MLPTorso,
    QNetwork,
    SharedTrunk,
)
from lit_mtdqn.objectives import AttentionTransfer, FeatureRegression
from lit_mtdqn.types import Linear, Transition

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
]
IMAGES = [
    TaskInfo(name=name, observation_shape=(2, 6, 6), num_actions=3, observation_kind="image")
    for name in ("a", "b")
]
LINEAR = partial(LinearHead, init_scale=1.0)


def network_of(*hidden: int) -> Any:
    return partial(QNetwork, torso=partial(MLPTorso, hidden=hidden), head=LINEAR)


def images_of(channels: int, hidden: int = 5, **options: Any) -> Any:
    torso = partial(MinAtarTorso, channels=channels, hidden=hidden)
    return partial(QNetwork, torso=torso, head=LINEAR, **options)


class Network:
    """A foreign teacher that shows what it sees."""

    def __init__(self, network: QNetwork) -> None:
        self.network = network

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        return self.network.action_values(observation, task)

    def layers(self, observation: Tensor, task: Tensor) -> tuple[Tensor, ...]:
        return self.network.shaped_layers(self.network(observation, task))


def _teacher(make: Any, infos: Any = INFOS, seed: int = 1) -> Network:
    torch.manual_seed(seed)
    return Network(make(infos))


def _student(
    objective: Any, teachers: dict[str, Any], make: Any, infos: Any = INFOS, **options: Any
) -> PolicyDistillation:
    torch.manual_seed(0)
    sgd: Any = partial(torch.optim.SGD, lr=0.1)
    given: dict[str, Any] = {"objectives": [objective], "optimizer": sgd, **options}
    model = PolicyDistillation(infos, network=make, **given)
    model.use_teachers(teachers)
    Standalone(model)
    return model


def _term(model: PolicyDistillation, batch: Transition) -> Tensor:
    (term,) = model.losses(batch).auxiliary.values()
    return term.detach()


def _image_batch() -> Transition:
    batch = random_batch([TaskInfo(name=n, observation_shape=(1,), num_actions=3) for n in "ab"])
    generator = torch.Generator().manual_seed(0)
    shown = torch.randint(0, 2, (2, 4, 2, 6, 6), dtype=torch.uint8, generator=generator)
    return batch._replace(observation=shown, next_observation=shown)


def test_each_task_has_a_linear_map_to_the_features_of_its_teacher() -> None:
    large, small = _teacher(network_of(9)), _teacher(network_of(4), seed=2)
    sizes = {"wide": 9, "narrow": 4}
    regression: Any = partial(FeatureRegression, weight=2.0)
    model = _student(regression, {"wide": large, "narrow": small}, network_of(6))
    batch = random_batch(INFOS)
    found = _term(model, batch)
    own = model.network(batch.observation, batch.task).features
    (objective,) = model.objectives
    assert isinstance(objective, FeatureRegression)
    assert objective.regressors is not None
    state = objective.regressors.state_dict()
    for group, (name, teacher) in enumerate({"wide": large, "narrow": small}.items()):
        theirs = teacher.layers(batch.observation, batch.task)[-1][group]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        assert weight.shape == (6, sizes[name])
        distance = (own[group] @ weight + bias - theirs).square().sum(-1)
        expected = 2.0 * distance / theirs.square().sum(-1).mean() * batch.weight[group]
        assert_table(found[group], expected.detach())


def test_a_student_learns_to_see_what_its_teacher_sees() -> None:
    teacher = _teacher(network_of(6))
    teachers = dict.fromkeys(("wide", "narrow"), teacher)
    regression: Any = partial(FeatureRegression, weight=1.0)
    model = _student(regression, teachers, network_of(6))
    batch = random_batch(INFOS, rows=8)
    first = float(_term(model, batch).mean())
    Standalone(model).update(*[batch] * 300)
    assert float(_term(model, batch).mean()) < 0.1 * first


def test_maps_and_the_student_learn_and_the_teacher_does_not() -> None:
    teacher = _teacher(network_of(6))
    model = _student(FeatureRegression, dict.fromkeys(("wide", "narrow"), teacher), network_of(6))
    before = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    assert any("regressors" in name for name in before)
    kept = {name: tensor.clone() for name, tensor in teacher.network.state_dict().items()}
    Standalone(model).update(random_batch(INFOS))
    assert not any(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)
    assert all(torch.equal(kept[n], t) for n, t in teacher.network.state_dict().items())


@pytest.mark.parametrize("objective", [FeatureRegression, AttentionTransfer])
def test_teachers_of_tasks_that_do_not_learn_alone_are_refused(objective: Any) -> None:
    infos = [INFOS[0], replace(INFOS[1], learns=False)]
    model = MultiTaskDQN(infos, network_of(6), objectives=[objective], scale=None)
    loaded = Teachers(infos, {"narrow": _teacher(network_of(4))})
    model.load_teachers = lambda *_: loaded  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=complaint(f"{objective.__name__}.teachers")) as error:
        Standalone(model)
    assert "['wide']" in str(error.value)


def test_of_tasks_those_without_a_teacher_are_left_alone() -> None:
    torch.manual_seed(0)
    model = MultiTaskDQN(INFOS, network_of(6), objectives=[FeatureRegression], scale=None)
    loaded = Teachers(INFOS, {"narrow": _teacher(network_of(4))})
    model.load_teachers = lambda *_: loaded  # type: ignore[method-assign]
    Standalone(model)
    (term,) = model.losses(random_batch(INFOS)).auxiliary.values()
    assert (term[0] == 0.0).all()
    assert (term[1] > 0.0).all()
    names = [name for name in model.state_dict() if "regressors" in name]
    assert names == [f"objectives.0.regressors.narrow.{kind}" for kind in ("weight", "bias")]


def test_terms_are_balanced_with_their_task() -> None:
    teachers = dict.fromkeys(("wide", "narrow"), _teacher(network_of(6)))
    balancer = partial(Aggregated, aggregator=aggregation.Mean)
    for objective in (FeatureRegression, AttentionTransfer):
        gradients = []
        for options in ({}, {"balancer": balancer}):
            model = _student(objective, teachers, network_of(6), **options)
            batch = random_batch(INFOS)
            losses = model.losses(batch, model.update_parameters(batch))
            model.accumulate_gradients(losses, batch)
            trained = [p for p in model.parameters() if p.grad is not None]
            gradients.append([p.grad for p in trained])
        torch.testing.assert_close(*gradients)


def test_maps_of_convolutions_are_matched_whatever_their_channels() -> None:
    teacher = _teacher(images_of(channels=7, hidden=9), IMAGES)
    model = _student(AttentionTransfer, {"a": teacher, "b": teacher}, images_of(3), IMAGES)
    batch = _image_batch()
    found = _term(model, batch)
    maps = []
    for network, channels in ((model.network, 3), (teacher.network, 7)):
        layer = network(batch.observation, batch.task).layers[0].view(2, 4, channels, 4, 4)
        attention = layer.square().sum(2).flatten(2)
        maps.append(attention / attention.norm(dim=-1, keepdim=True))
    expected = (maps[0] - maps[1]).square().sum(-1) * batch.weight
    assert_table(found, expected.detach())


def test_layers_without_places_are_matched_unit_by_unit() -> None:
    teacher = _teacher(network_of(6, 5))
    teachers = dict.fromkeys(("wide", "narrow"), teacher)
    batch = random_batch(INFOS)
    terms = []
    for layers in ([0], [1], None):
        model = _student(partial(AttentionTransfer, layers=layers), teachers, network_of(6, 5))
        terms.append(_term(model, batch))
        if layers is None:
            continue
        (place,) = layers
        squares = [
            network(batch.observation, batch.task).layers[place].square()
            for network in (model.network, teacher.network)
        ]
        maps = [square / square.norm(dim=-1, keepdim=True) for square in squares]
        expected = (maps[0] - maps[1]).square().sum(-1) * batch.weight
        assert_table(terms[-1], expected.detach())
    assert_table(terms[2], (terms[0] + terms[1]) / 2.0)


@pytest.mark.parametrize(
    "sharing",
    [
        partial(Columns),
        partial(Experts, num_experts=2),
        partial(SharedTrunk, conditioning="film"),
        partial(SharedTrunk, conditioning="branch"),
    ],
    ids=["columns", "experts", "film", "branch"],
)
def test_layers_keep_their_places_however_tasks_share(sharing: Any) -> None:
    network = images_of(3, sharing=sharing)(IMAGES)
    batch = _image_batch()
    prediction = network(batch.observation, batch.task)
    first, last = network.shaped_layers(prediction)
    assert first.shape[-1] == 16
    torch.testing.assert_close(first.flatten(2), prediction.layers[0])
    assert last is prediction.features
    if "branch" not in str(sharing):
        return
    # Of the one convolution that all share.
    (convolution,) = (m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    expected = convolution(batch.observation.float().flatten(0, 1)).relu().flatten(2)
    torch.testing.assert_close(first.flatten(0, 1), expected)


def test_the_weight_may_follow_a_schedule_of_updates() -> None:
    teachers = dict.fromkeys(("wide", "narrow"), _teacher(network_of(6)))
    schedule = Linear(start=1.0, end=0.0, duration=10)
    model = _student(partial(FeatureRegression, weight=schedule), teachers, network_of(6))
    batch = random_batch(INFOS)
    full = _term(model, batch)
    model.source.clock.updates = 5
    assert_table(_term(model, batch), 0.5 * full)


class First(Callback):
    """Notes the state that training starts from."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.state = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}


def test_a_resumed_run_goes_on_with_its_maps(tmp_path: Path) -> None:
    teacher, path = _teacher(network_of(4)), tmp_path / "last.ckpt"
    saved: dict[str, Tensor] = {}
    for steps in (60, 120):
        torch.manual_seed(steps)
        data = small_data({"wide": TaskSpec(env=VECTOR)}, total_env_steps=steps)
        make: Any = network_of(6)
        model = PolicyDistillation(data.task_infos, network=make, objectives=[FeatureRegression])
        model.use_teachers({"wide": teacher})
        first = First()
        trainer = quiet_trainer(first)
        trainer.fit(model, data, ckpt_path=path if saved else None, weights_only=True)
        if saved:
            assert_equal_tensors(first.state, saved)
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        trainer.save_checkpoint(path)
    assert any("regressors" in name for name in saved)


def test_maps_of_other_sizes_are_refused_with_both() -> None:
    teachers = {"wide": _teacher(network_of(9)), "narrow": _teacher(network_of(6))}
    with pytest.raises(ValueError, match=complaint("teachers.wide")) as error:
        _student(AttentionTransfer, teachers, network_of(6))
    assert "[6]" in str(error.value)
    assert "[9]" in str(error.value)
    shallow = dict.fromkeys(teachers, _teacher(network_of(6)))
    with pytest.raises(ValueError, match=complaint("teachers.wide")):
        _student(AttentionTransfer, shallow, network_of(6, 6))


def test_later_teachers_have_as_many_features_as_earlier_ones() -> None:
    teachers = dict.fromkeys(("wide", "narrow"), _teacher(network_of(4)))
    model = _student(FeatureRegression, teachers, network_of(6))
    (objective,) = model.objectives
    assert isinstance(objective, FeatureRegression)
    kept = objective.regressors
    model.use_teachers(dict.fromkeys(teachers, _teacher(network_of(4), seed=2)))
    Standalone(model)
    assert objective.regressors is kept
    model.use_teachers(dict.fromkeys(teachers, _teacher(network_of(5))))
    with pytest.raises(ValueError, match=complaint("teachers")) as error:
        Standalone(model)
    assert "{'wide': 4, 'narrow': 4}" in str(error.value)


@pytest.mark.parametrize("objective", [FeatureRegression, AttentionTransfer])
def test_teachers_that_show_no_layers_are_refused(objective: Any) -> None:
    class Blind:
        def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
            return torch.zeros(*observation.shape[:2], 4)

    with pytest.raises(ValueError, match=complaint("teachers.wide")) as error:
        _student(objective, dict.fromkeys(("wide", "narrow"), Blind()), network_of(6))
    assert "layers(observation, task)" in str(error.value)


@pytest.mark.parametrize("objective", [FeatureRegression, AttentionTransfer])
def test_learners_without_teachers_of_their_own_must_name_some(objective: Any) -> None:
    model = MultiTaskDQN(INFOS, network_of(6), objectives=[objective])
    with pytest.raises(ValueError, match=complaint("teachers")):
        Standalone(model)


@pytest.mark.parametrize(
    ("objective", "options", "name"),
    [
        (FeatureRegression, {"weight": -1.0}, "weight"),
        (AttentionTransfer, {"weight": Linear(start=1.0, end=-1.0, duration=9)}, "weight"),
        (FeatureRegression, {"teachers": {}}, "teachers"),
        (AttentionTransfer, {"layers": []}, "layers"),
        (AttentionTransfer, {"layers": [1]}, "layers"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(objective: Any, options: Any, name: str) -> None:
    with pytest.raises(ValueError, match=complaint(f"{objective.__name__}.{name}")):
        objective(INFOS, network_of(6)(INFOS), **options)


def test_a_run_sees_as_another_did_and_its_checkpoint_needs_no_teacher(tmp_path: Path) -> None:
    tasks = {"a": TaskSpec(env=VECTOR), "b": TaskSpec(env=VECTOR)}
    data, folder = small_data(tasks), str(tmp_path / "teacher")
    path = Path(folder) / "checkpoints" / "last.ckpt"
    fit(data, MultiTaskDQN(data.task_infos, network_of(6, 6))).save_checkpoint(path)
    regression: Any = partial(FeatureRegression, teachers={"a": folder})
    attention: Any = partial(AttentionTransfer, teachers={"b": folder}, layers=[1])
    for options in ({"teachers": {"a": folder, "b": folder}}, {}):
        data = small_data(tasks)
        kind: Any = PolicyDistillation if options else MultiTaskDQN
        given = [FeatureRegression, AttentionTransfer] if options else [regression, attention]
        hidden = (6, 6) if options else (8, 6)
        model = kind(data.task_infos, network=network_of(*hidden), objectives=given, **options)
        trainer = fit(data, model, log_every_n_steps=1)
        for name in ("feature_regression", "attention_transfer"):
            assert float(trainer.callback_metrics[f"train/{name}"]) > 0.0
        trainer.save_checkpoint(tmp_path / "student.ckpt")
        path.rename(tmp_path / "hidden.ckpt")
        assert_same_state(kind.load_from_checkpoint(tmp_path / "student.ckpt"), model)
        (tmp_path / "hidden.ckpt").rename(path)
