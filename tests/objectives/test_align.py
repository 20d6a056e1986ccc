from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch
from helpers.counting_env import SINGLE, VECTOR
from helpers.heads import ALL, each
from helpers.runs import fit, quiet_trainer, small_data
from helpers.sources import save_run
from helpers.standalone import Standalone
from torch import Tensor
from torch.nn.functional import softplus
from torchjd import aggregation

from lit_mtdqn import MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.algorithms import PolicyDistillation
from lit_mtdqn.algorithms.teachers import Teachers
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.data import GumbelTopK
from lit_mtdqn.functional.alignment import coral, mmd_squared, similarity_weights
from lit_mtdqn.networks import LinearHead, MinAtarTorso, MLPTorso, QNetwork
from lit_mtdqn.objectives import Align
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import Linear, Transition

INFOS = [
    TaskInfo(name="near", observation_shape=(3,), num_actions=4),
    TaskInfo(name="far", observation_shape=(3,), num_actions=4, head="near", learns=False),
    TaskInfo(name="other", observation_shape=(3,), num_actions=2),
]
OWN_HEAD = [replace(info, head=info.name) for info in INFOS]
NEAR, FAR, OTHER = range(3)
NETWORK = partial(
    QNetwork, torso=partial(MLPTorso, hidden=[6, 5]), head=partial(LinearHead, init_scale=1.0)
)
KINDS = ("mmd", "coral", "dann", "dam")


def _aligned(infos: Any = INFOS, **options: Any) -> MultiTaskDQN:
    """Return a learner on given batches that aligns its tasks."""
    torch.manual_seed(0)
    names = ("scale", "balancer")
    settled = {name: options.pop(name) for name in names if name in options}
    infos = OWN_HEAD if options.get("kind") == "dam" else infos
    given: dict[str, Any] = {"objectives": [partial(Align, **options)], "scale": None, **settled}
    model = MultiTaskDQN(infos, NETWORK, **given)
    Standalone(model)
    return model


def _batch(groups: Any = (NEAR, OTHER), rows: int = 4) -> Transition:
    """Return rows of the tasks that learn, and observations of the one that does not."""
    generator = torch.Generator().manual_seed(9)
    seen = 0.5 + torch.randn(rows, 3, generator=generator)
    return random_batch(INFOS, rows, groups=groups)._replace(observed={"far": seen})


def _objective(model: MultiTaskDQN) -> Align:
    (objective,) = model.objectives
    assert isinstance(objective, Align)
    return objective


def _term(model: MultiTaskDQN, batch: Transition | None = None, updates: int = 0) -> Tensor:
    model.source.clock.updates = updates
    (term,) = model.losses(batch or _batch()).auxiliary.values()
    return term


def _features(model: MultiTaskDQN, layer: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    """Return features of both sources and of the target, [4, F]."""
    batch = _batch()
    near, other = model.network(batch.observation, batch.task).layers[layer]
    seen = batch.observed["far"].unsqueeze(0)
    (far,) = model.network(seen, torch.tensor([FAR])).layers[layer]
    return near, other, far


@pytest.mark.parametrize(("kind", "distance"), [("mmd", mmd_squared), ("coral", coral)])
def test_the_term_is_the_weighted_distance_of_the_target_to_all_sources(
    kind: str, distance: Any
) -> None:
    model = _aligned(kind=kind, weight=3.0)
    near, other, far = _features(model)
    term = _term(model)
    assert term.dim() == 0
    assert_table(term, 3.0 * distance(torch.cat([near, other]), far))
    assert list(model.losses(_batch()).auxiliary) == [f"{kind}/far"]


def test_sources_and_the_layer_may_be_chosen() -> None:
    chosen = _aligned(sources=["other"], layer=0, weight=1.0)
    _, other, far = _features(chosen, layer=0)
    assert other.shape == (4, 6)
    assert_table(_term(chosen), mmd_squared(other, far))
    assert list(chosen.losses(_batch()).auxiliary) == ["mmd_0/far"]


def test_several_row_groups_of_one_source_all_count() -> None:
    model = _aligned(sources=["near"], weight=1.0)
    batch = _batch([NEAR, OTHER, NEAR])
    features = model.network(batch.observation, batch.task).features
    _, _, far = _features(model)
    assert_table(_term(model, batch), mmd_squared(features[[0, 2]].flatten(0, 1), far))


@pytest.mark.parametrize("kind", ["mmd", "coral", "dam"])
def test_the_weight_may_follow_a_schedule_of_updates(kind: str) -> None:
    model = _aligned(kind=kind, weight=Linear(start=0.0, end=2.0, duration=10))
    full = _term(model, updates=10)
    assert _term(model) == 0.0
    assert_table(_term(model, updates=5), 0.5 * full)


def test_the_classifier_learns_in_full_while_the_weight_turns_the_features_against_it() -> None:
    gradients = []
    for weight in (0.0, 0.25, 0.5):
        model = _aligned(kind="dann", weight=weight, hidden=7)
        _term(model).backward()  # type: ignore[no-untyped-call]
        parts = (_objective(model), model.network.torso)
        found = ([p.grad for p in part.parameters()] for part in parts)
        gradients.append([[g for g in part if g is not None] for part in found])
    for classifier, _ in gradients:
        torch.testing.assert_close(classifier, gradients[0][0])
    assert sum(float(gradient.abs().sum()) for gradient in gradients[0][0]) > 0.0
    assert all(float(gradient.abs().max()) == 0.0 for gradient in gradients[0][1])
    for quarter, half in zip(gradients[1][1], gradients[2][1], strict=True):
        torch.testing.assert_close(half, 2.0 * quarter)


def test_the_classifiers_loss_is_that_of_its_logits() -> None:
    model = _aligned(kind="dann", hidden=7)
    classifier = _objective(model).classifier
    assert classifier is not None
    near, other, far = _features(model)
    source = softplus(classifier(torch.cat([near, other]))).mean()
    expected = (source + softplus(-classifier(far)).mean()) / 2.0
    assert_table(_term(model), expected)


def test_the_classifier_is_trained_and_saved_with_the_network() -> None:
    model = _aligned(kind="dann", hidden=7)
    trained = {id(p) for g in model.configure_optimizers().param_groups for p in g["params"]}
    parameters = list(_objective(model).parameters())
    assert [tuple(p.shape) for p in parameters] == [(7, 5), (7,), (1, 7), (1,)]
    assert {id(p) for p in parameters} <= trained
    assert "objectives.0.classifier.0.weight" in model.state_dict()
    assert not list(_objective(_aligned(kind="mmd")).parameters())


def test_the_adversary_makes_domains_harder_to_tell_apart() -> None:
    ends = []
    for weight in (0.0, 1.0):
        model = _aligned(kind="dann", weight=weight)
        trained = [p for module in model.trained_modules() for p in module.parameters()]
        optimizer = torch.optim.Adam(trained, lr=3e-3)
        batch = _batch(rows=64)
        batch = batch._replace(observed={"far": batch.observed["far"] + 3.0})
        for _ in range(200):
            optimizer.zero_grad()
            _term(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        ends.append(float(_term(model, batch).detach()))
    assert ends[0] < 0.3
    assert ends[1] > 0.5


def _values(model: MultiTaskDQN, network: QNetwork) -> Tensor:
    """Return values [3, B, A] of a network's heads at the target's observations."""
    seen = _batch().observed["far"].expand(3, -1, -1)
    return network.q_values(network(seen, torch.arange(3)))


def _apart(model: MultiTaskDQN) -> None:
    """Let the target network differ from the online one."""
    with torch.no_grad():
        for parameter in model.target_network.parameters():
            parameter.mul_(1.3)


def test_the_targets_values_are_drawn_to_those_of_near_sources() -> None:
    model = _aligned(kind="dam", weight=2.0, sharpness=3.0)
    _apart(model)
    near, other, far = _features(model)
    ours, theirs = _values(model, model.network)[FAR], _values(model, model.target_network)
    mmd = torch.stack([mmd_squared(near, far), mmd_squared(other, far)])
    weights = similarity_weights(mmd, 3.0).detach()
    assert 0.05 < float(weights.min()) < 0.45
    distances = [
        (ours - theirs[NEAR]).square().mean(),
        # Two of the actions are the target's alone.
        (ours - theirs[OTHER])[:, :2].square().mean(),
    ]
    term = _term(model)
    assert_table(term, 2.0 * (weights[0] * distances[0] + weights[1] * distances[1]))
    term.backward()  # type: ignore[no-untyped-call]
    head = next(iter(model.network.head.parameters())).grad
    assert head is not None
    names = sorted(info.name for info in INFOS)
    moved = {name: float(head[row].abs().max()) > 0.0 for row, name in enumerate(names)}
    assert moved == {"near": False, "far": True, "other": False}
    # The layers below learn, too.
    assert all(bool(p.grad.any()) for p in model.network.torso.parameters())  # type: ignore[union-attr]


def test_sources_of_unlike_units_are_compared_in_that_of_the_first() -> None:
    model = _aligned(kind="dam", scale=PopArt, weight=1.0, sharpness=0.0)
    scale = model.scale
    assert scale is not None
    # Mean, mean of squares and number: values are 5 + 10 u of the one and u of the other.
    moments = {"near": [5.0, 125.0, 1.0], "other": [0.0, 1.0, 1.0]}
    scale.set_extra_state({name: torch.tensor(numbers) for name, numbers in moments.items()})
    ours, theirs = _values(model, model.network)[FAR], _values(model, model.target_network)
    distances = [
        (ours - theirs[NEAR]).square().mean(),
        (ours - (theirs[OTHER] - 5.0) / 10.0)[:, :2].square().mean(),
    ]
    assert_table(_term(model), sum(distances) / 2.0)
    seen, task = _batch().observed["far"].unsqueeze(0), torch.tensor([FAR])
    before = model.action_values(seen, task)
    assert_table(before[0], (5.0 + 10.0 * ours).detach())
    # As the unit moves the target's head is rewritten.
    scale.on_target(
        torch.full((1, 4), 3.0), torch.tensor([NEAR]), model.heads_of_values(), lambda t: t
    )
    assert scale.spread[FAR] == scale.spread[NEAR] != 10.0
    torch.testing.assert_close(model.action_values(seen, task), before)


class Fixed:
    """Says 7 of everything."""

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        return torch.full((*observation.shape[:2], 4), 7.0)


def test_teachers_may_speak_for_sources_in_the_sources_unit() -> None:
    model = _aligned(kind="dam", sources=["near"], scale=PopArt, weight=1.0)
    assert model.scale is not None
    model.scale.spread.fill_(2.0)
    model.scale.offset.fill_(1.0)
    _objective(model)._teachers = Teachers(OWN_HEAD, {"near": Fixed()})
    ours = _values(model, model.network)[FAR]
    assert_table(_term(model), (ours - 3.0).square().mean())
    _objective(model)._teachers = Teachers(OWN_HEAD, {"other": Fixed()})
    theirs = _values(model, model.target_network)[NEAR]
    assert_table(_term(model), (ours - theirs).square().mean())


def test_teachers_of_logits_do_not_speak_for_sources(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", PolicyDistillation([OWN_HEAD[NEAR]], network=NETWORK))
    align = partial(Align, kind="dam", sources=["near"], teachers={"near": folder})
    with pytest.raises(ValueError, match=complaint("teachers")) as error:
        Standalone(MultiTaskDQN(OWN_HEAD, NETWORK, objectives=[align]))
    assert "say values for `Align.kind` dam" in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_minibatch_without_sources_changes_nothing_and_reaches_every_part(kind: str) -> None:
    model = _aligned(kind=kind, sources=["near"], weight=1.0)
    term = _term(model, _batch([OTHER]))
    assert_table(term.detach(), 0.0)
    term.backward()  # type: ignore[no-untyped-call]
    # Ranks wait for the gradients of all parameters.
    for parameter in _objective(model).parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) == 0.0


def test_a_minibatch_without_observations_of_the_target_has_no_term() -> None:
    model = _aligned()
    assert model.losses(_batch()._replace(observed={})).auxiliary == {}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same_where_each_task_has_copies_of_what_is_shared(kind: str) -> None:
    gradients = []
    for balancer in (None, partial(Aggregated, aggregator=aggregation.Mean)):
        model = _aligned(kind=kind, weight=2.0, balancer=balancer)
        batch = _batch()
        losses = model.losses(batch, model.update_parameters(batch))
        model.accumulate_gradients(losses, batch)
        parameters = [p for module in model.trained_modules() for p in module.parameters()]
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_float32_under_autocast(kind: str) -> None:
    model = _aligned(kind=kind, weight=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = _term(model)
    assert term.dtype == torch.float32
    torch.testing.assert_close(term, _term(model), rtol=0.2, atol=0.05)


@each({name: head for name, head in ALL.items() if name.startswith("noisy dueling")})
def test_values_of_every_head_are_matched(head: Any) -> None:
    objective = partial(Align, kind="dam", weight=1.0)
    model = MultiTaskDQN(OWN_HEAD, partial(QNetwork, head=head), objectives=[objective], scale=None)
    Standalone(model)
    model.resample_noise()
    term = _term(model)
    term.backward()  # type: ignore[no-untyped-call]
    assert float(term.detach()) > 0.0
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.network.head.parameters())


def test_a_student_of_teachers_aligns_too() -> None:
    model = PolicyDistillation(INFOS, network=NETWORK, objectives=[partial(Align, weight=1.0)])
    model.use_teachers({"near": Fixed(), "other": Fixed()})
    Standalone(model)
    near, other, far = _features(model)
    assert_table(_term(model), mmd_squared(torch.cat([near, other]), far))


COUNT = TaskSpec(env=VECTOR)
UNREWARDED = TaskSpec(env=SINGLE, head="near", learns=False)


def _tasks(kind: Any) -> dict[str, TaskSpec]:
    far = replace(UNREWARDED, head=None) if kind == "dam" else UNREWARDED
    return {"near": COUNT, "far": far, "other": COUNT}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_aligns_and_its_checkpoint_loads(kind: Any, precision: str, tmp_path: Path) -> None:
    data = small_data(_tasks(kind), sampler=GumbelTopK(k=1, score="td_error"))
    objective = partial(Align, kind=kind, sources=["near"])
    model = MultiTaskDQN(data.task_infos, NETWORK, objectives=[objective])
    trainer = fit(data, model, log_every_n_steps=1, precision=precision)
    assert data.clock.env_steps["far"] > 0
    assert bool(trainer.callback_metrics[f"train/{kind}/far"].isfinite())
    assert not [name for name in trainer.callback_metrics if name == "train/td_loss/far"]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = MultiTaskDQN.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    quiet_trainer().test(loaded, small_data(_tasks(kind)), verbose=False)


def test_pictures_are_aligned_as_vectors_are() -> None:
    near = TaskSpec(env="MinAtar/Breakout-v1")
    data = small_data({"near": near, "far": replace(near, head="near", learns=False)})
    network = partial(QNetwork, torso=partial(MinAtarTorso, channels=2, hidden=6))
    objectives = [partial(Align, kind="mmd", layer=0), partial(Align, kind="dann")]
    model = MultiTaskDQN(data.task_infos, network, objectives=objectives)
    metrics = fit(data, model, log_every_n_steps=1).callback_metrics
    assert {"train/mmd_0/far", "train/dann/far"} <= metrics.keys()


def test_a_target_that_keeps_no_observations_is_refused_before_any_step() -> None:
    data = small_data({**_tasks("mmd"), "far": replace(UNREWARDED, acts=False)})
    model = MultiTaskDQN(data.task_infos, NETWORK, objectives=[Align])
    with pytest.raises(ValueError, match=complaint("tasks.far.acts")):
        fit(data, model)
    assert data.clock.total_env_steps == 0


def test_minibatches_of_one_row_are_refused_before_any_step() -> None:
    data = small_data(_tasks("mmd"), batch_size=1)
    model = MultiTaskDQN(data.task_infos, NETWORK, objectives=[Align])
    with pytest.raises(ValueError, match=complaint("batch_size")):
        fit(data, model)
    assert data.clock.total_env_steps == 0


def test_a_second_learner_has_the_observations_that_it_asks_for() -> None:
    data = small_data(_tasks("mmd"))
    fit(data, MultiTaskDQN(data.task_infos, NETWORK))
    data.total_env_steps = 400
    model = MultiTaskDQN(data.task_infos, NETWORK, objectives=[Align])
    metrics = fit(data, model, log_every_n_steps=1).callback_metrics
    assert "train/mmd/far" in metrics


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"kind": "wasserstein"}, "Align.kind"),
        ({"weight": -0.1}, "Align.weight"),
        ({"target": "near"}, "Align.target"),
        ({"target": "nowhere"}, "Align.target"),
        ({"sources": ["far"]}, "Align.sources"),
        ({"sources": []}, "Align.sources"),
        ({"layer": 2}, "Align.layer"),
        ({"layer": -3}, "Align.layer"),
        ({"hidden": 0}, "Align.hidden"),
        ({"sharpness": -1.0}, "Align.sharpness"),
        ({"kind": "dam"}, "tasks.far.head"),
        ({"teachers": {"near": "run"}}, "Align.teachers"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        Align(INFOS, NETWORK(INFOS), **options)


def test_the_target_must_be_named_unless_one_task_alone_does_not_learn() -> None:
    learning = [replace(info, learns=True) for info in OWN_HEAD]
    held_out = [*INFOS, replace(INFOS[FAR], name="held")]
    for infos in (learning, held_out):
        with pytest.raises(ValueError, match=complaint("Align.target")):
            Align(infos, NETWORK(infos))
    assert Align(held_out, NETWORK(held_out), target="held").observes == ["held"]
