from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import fit, quiet_trainer, small_data
from helpers.sources import STEP, random_importance, save_run
from helpers.standalone import Standalone
from torch import Tensor
from torchjd import aggregation

from lit_mtdqn import MultiTaskDQN, PolicyDistillation, TaskInfo, TaskSpec
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.functional.anchoring import Penalty
from lit_mtdqn.networks import (
    C51Head,
    Columns,
    DuelingHead,
    LinearHead,
    MLPTorso,
    QNetwork,
    TaskLinear,
)
from lit_mtdqn.networks.flat import flat_parameters, saved_from_flat
from lit_mtdqn.objectives import Anchor
from lit_mtdqn.scaling import PopArt, ReturnNormaliser
from lit_mtdqn.types import Linear

WIDE = TaskInfo(name="wide", observation_shape=(3,), num_actions=4)
NARROW = TaskInfo(name="narrow", observation_shape=(3,), num_actions=2)
NEW = TaskInfo(name="new", observation_shape=(3,), num_actions=3)
OLD = replace(WIDE, learns=False)
TORSO = partial(MLPTorso, hidden=[5])
NETWORK = partial(QNetwork, torso=TORSO, head=partial(LinearHead, init_scale=1.0))


class Standardising(MLPTorso):
    """A torso with a buffer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("running_mean", torch.zeros(1))


def _model(*infos: TaskInfo, seed: int = 0, **options: Any) -> MultiTaskDQN:
    torch.manual_seed(seed)
    return MultiTaskDQN(infos, **{"network": NETWORK, "scale": None, **options})


def _anchored(*infos: TaskInfo, sources: Any, options: Any = (), **given: Any) -> MultiTaskDQN:
    """Return a learner that stands at the start of a run."""
    make: Any = partial(Anchor, sources=sources, **given)
    model = _model(*infos, seed=9, objectives=[make], **dict(options))
    Standalone(model)
    return model


def _term(model: MultiTaskDQN) -> Tensor:
    return model.losses(random_batch(model.tasks)).auxiliary["anchor"]


def _penalty(model: MultiTaskDQN, updates: int = 0) -> float:
    model.source.clock.updates = updates
    return float(_term(model).detach())


def _by_loop(
    model: MultiTaskDQN,
    weights: Mapping[str, Tensor],
    importance: Mapping[str, Tensor] | None,
    names: Any,
) -> float:
    """Return half the weighted squared distances of some saved tensors, number by number."""
    total, own = 0.0, model.network.state_dict()
    for name in names:
        factor = torch.ones_like(own[name]) if importance is None else importance[name]
        numbers = (own[name].flatten(), weights[name].flatten(), factor.flatten())
        for theta, centre, factor in zip(*numbers, strict=True):
            total += 0.5 * float(factor) * (float(theta) - float(centre)) ** 2
    return total


TRUNK = ["torso.layers.0.weight", "torso.layers.0.bias"]


def _head(name: str) -> list[str]:
    return [f"head.values.{name}.weight", f"head.values.{name}.bias"]


@pytest.mark.parametrize("importance", ["equal", "fisher"])
def test_the_penalty_is_that_of_a_loop_over_numbers_and_new_heads_are_free(
    importance: str, tmp_path: Path
) -> None:
    source = _model(WIDE, NARROW)
    fisher = random_importance(source.network)
    folder = save_run(tmp_path / "run", source, fisher)
    # Tasks in another order, one gone and one new.
    model = _anchored(NEW, WIDE, sources=[folder], importance=importance, strength=3.0)
    given = None if importance == "equal" else fisher
    names = [*TRUNK, *_head("wide")]
    expected = 3.0 * _by_loop(model, source.network.state_dict(), given, names)
    assert expected > 0.0
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)
    head = model.network.head.values
    assert isinstance(head, TaskLinear)
    (gradient,) = torch.autograd.grad(_term(model), [head.weight])
    new = head.heads.index("new")
    assert (gradient[new] == 0.0).all()
    assert (gradient[1 - new] != 0.0).all()


@pytest.mark.parametrize("importance", ["equal", "fisher"])
@pytest.mark.parametrize("sharing", [None, Columns], ids=["heads", "columns"])
def test_what_a_new_task_has_had_in_a_source_that_did_not_learn_it_is_free(
    sharing: Any, importance: str, tmp_path: Path
) -> None:
    network = partial(NETWORK, sharing=sharing)
    held_out = replace(NARROW, learns=False)
    source = _model(WIDE, held_out, network=network)
    folder = save_run(tmp_path / "run", source, random_importance(source.network))
    here = (OLD, NARROW)
    model = _anchored(*here, sources=[folder], importance=importance, options={"network": network})
    parameters = saved_from_flat(model.network, flat_parameters(model.network))
    (anchor,) = model.objectives
    assert isinstance(anchor, Anchor)
    held = saved_from_flat(model.network, anchor.held)
    new = {name for name in parameters if ".narrow." in name}
    assert len(new) == (2 if sharing is None else 4)
    assert all((held[name] == 0.0).all() for name in new)
    assert all((held[name] > 0.0).all() for name in set(parameters) - new)


def test_what_did_not_matter_is_held_by_the_floor_and_what_is_free_is_not(tmp_path: Path) -> None:
    source = _model(WIDE, NARROW)
    fisher = random_importance(source.network)
    fisher["torso.layers.0.weight"][:2] = 0.0
    folder = save_run(tmp_path / "run", source, fisher)
    model = _anchored(NEW, WIDE, sources=[folder], floor=0.25)
    raised = {name: tensor.clamp(min=0.25) for name, tensor in fisher.items()}
    names = [*TRUNK, *_head("wide")]
    expected = _by_loop(model, source.network.state_dict(), raised, names)
    assert expected > _by_loop(model, source.network.state_dict(), fisher, names)
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)
    # What mattered is handed on without it.
    (anchor,) = model.objectives
    assert isinstance(anchor, Anchor)
    assert float(anchor.held.sum()) == pytest.approx(sum(float(fisher[n].sum()) for n in names))


def test_several_sources_hold_at_once(tmp_path: Path) -> None:
    runs = {name: _model(info, seed=s) for s, (name, info) in enumerate([("a", WIDE), ("b", NEW)])}
    fishers = {
        name: random_importance(run.network, s) for s, (name, run) in enumerate(runs.items())
    }
    folders = [save_run(tmp_path / name, run, fishers[name]) for name, run in runs.items()]
    model = _anchored(WIDE, NARROW, NEW, sources=folders)
    expected = sum(
        _by_loop(model, run.network.state_dict(), fishers[name], [*TRUNK, *_head(task)])
        for (name, run), task in zip(runs.items(), ("wide", "new"), strict=True)
    )
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)


def test_the_strength_may_change_on_a_schedule_of_updates(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", _model(WIDE))
    strength = Linear(start=4.0, end=0.0, duration=10)
    model = _anchored(WIDE, sources=[folder], importance="equal", strength=strength)
    assert _penalty(model, 5) == pytest.approx(0.5 * _penalty(model))
    assert _penalty(model, 10) == 0.0 < _penalty(model)


def test_what_has_another_shape_is_free_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = _model(replace(WIDE, num_actions=2))
    folder = save_run(tmp_path / "run", source)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        model = _anchored(WIDE, NEW, sources=[folder], importance="equal")
    expected = _by_loop(model, source.network.state_dict(), None, TRUNK)
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)
    told = caplog.text.splitlines()
    rows = {line.split()[0]: line for line in told if line.startswith(("torso", "head"))}
    assert "anchored" in rows["torso.layers.0"]
    assert rows["head.values.wide.weight"].split(maxsplit=2)[1:] == [
        "free",
        "(5, 4), in the source (5, 2)",
    ]
    assert "(4,), in the source (2,)" in rows["head.values.wide.bias"]
    assert "the source has no head.values.new" in rows["head.values.new"]


def test_what_is_in_no_part_is_said_to_be_free_and_running_statistics_are_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = partial(NETWORK, torso=partial(Standardising, hidden=[5]))
    folder = save_run(tmp_path / "run", _model(WIDE, network=network))
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        options = {"network": network}
        _anchored(WIDE, sources=[folder], importance="equal", parts=["trunk"], options=options)
    assert caplog.text.endswith(
        "weights           outcome   reason\n"
        "torso.layers.0    anchored\n"
        "head.values.wide  free      not in `parts`\n"
    )


def test_parts_alone_may_be_held(tmp_path: Path) -> None:
    source = _model(WIDE)
    folder = save_run(tmp_path / "run", source)
    for parts, names in (["trunk"], TRUNK), (["head.values.wide.bias"], _head("wide")[1:]):
        model = _anchored(WIDE, sources=[folder], importance="equal", parts=parts)
        expected = _by_loop(model, source.network.state_dict(), None, names)
        assert _penalty(model) == pytest.approx(expected, rel=1e-5)


def test_heads_that_a_scale_rewrites_are_free_and_those_of_earlier_tasks_held(
    tmp_path: Path,
) -> None:
    source = _model(WIDE, NARROW, scale=PopArt)
    folder = save_run(tmp_path / "run", source)
    options = {"scale": PopArt}
    model = _anchored(OLD, NARROW, sources=[folder], importance="equal", options=options)
    names = [*TRUNK, *_head("wide")]
    expected = _by_loop(model, source.network.state_dict(), None, names)
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)
    # PopArt moves the unit of what learns, and the penalty does not see it.
    model.network.head.rescale_(torch.tensor([1.0, 0.1]), torch.tensor([0.0, 5.0]))
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("own", "theirs"), [(None, PopArt), (PopArt, None), (ReturnNormaliser, PopArt)], ids=str
)
def test_heads_are_free_where_the_source_has_another_scale(
    own: Any, theirs: Any, tmp_path: Path
) -> None:
    source = _model(WIDE, NARROW, scale=theirs)
    folder = save_run(tmp_path / "run", source)
    model = _anchored(OLD, NARROW, sources=[folder], importance="equal", options={"scale": own})
    expected = _by_loop(model, source.network.state_dict(), None, TRUNK)
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)


def test_the_layers_that_heads_share_are_held_whatever_the_scale(tmp_path: Path) -> None:
    network = partial(QNetwork, torso=TORSO, head=partial(DuelingHead, hidden=4))
    source = _model(WIDE, network=network, scale=PopArt)
    folder = save_run(tmp_path / "run", source)
    options = {"network": network, "scale": PopArt}
    model = _anchored(WIDE, sources=[folder], importance="equal", options=options)
    every = source.network.state_dict()
    rewritten = {f"head.{s}.wide.{p}" for s in ("value", "advantage") for p in ("weight", "bias")}
    assert rewritten < set(every)
    names = set(every) - rewritten
    assert any(name.startswith("head.") for name in names)
    expected = _by_loop(model, every, None, sorted(names))
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)


def test_heads_of_another_kind_are_free(tmp_path: Path) -> None:
    network = partial(QNetwork, torso=TORSO, head=C51Head)
    source = _model(WIDE, network=network)
    folder = save_run(tmp_path / "run", source)
    model = _anchored(WIDE, sources=[folder], importance="equal")
    expected = _by_loop(model, source.network.state_dict(), None, TRUNK)
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)


def test_heads_of_values_are_not_held_to_logits_nor_logits_to_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = PolicyDistillation([WIDE], network=NETWORK)
    sources: dict[str, Any] = {"values": _model(WIDE), "logits": student}
    anchor: Any = partial(Anchor, importance="equal")
    for name, source in sources.items():
        folder = save_run(tmp_path / name, source)
        every = source.network.state_dict()
        held = partial(anchor, sources=[folder])
        later = PolicyDistillation([WIDE], network=NETWORK, objectives=[held])
        later.use_teachers({"wide": source})
        Standalone(later)
        models = {"values": _anchored(WIDE, sources=[folder], importance="equal"), "logits": later}
        for kind, model in models.items():
            names = [*TRUNK, *_head("wide")] if kind == name else TRUNK
            expected = _by_loop(model, every, None, names)
            assert _penalty(model) == pytest.approx(expected, rel=1e-5)


def test_columns_are_held_by_the_names_of_their_tasks(tmp_path: Path) -> None:
    network = partial(NETWORK, sharing=Columns)
    source = _model(WIDE, NARROW, network=network)
    folder = save_run(tmp_path / "run", source)
    options = {"network": network}
    model = _anchored(NEW, WIDE, sources=[folder], importance="equal", options=options)
    names = [name for name in source.network.state_dict() if ".wide." in name]
    assert len(names) == 4
    expected = _by_loop(model, source.network.state_dict(), None, names)
    assert _penalty(model) == pytest.approx(expected, rel=1e-5)


def test_it_is_added_after_balancing_to_what_tasks_share(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", _model(WIDE, NARROW))
    balancer = partial(Aggregated, aggregator=aggregation.Mean)
    gradients = []
    for options in ({}, {"balancer": balancer}):
        model = _anchored(WIDE, NARROW, sources=[folder], importance="equal", options=options)
        batch = random_batch(model.tasks)
        model.accumulate_gradients(model.losses(batch, model.update_parameters(batch)), batch)
        gradients.append([p.grad for p in model.network.parameters()])
        plain = _model(WIDE, NARROW, seed=9, **options)
        Standalone(plain)
        plain.accumulate_gradients(plain.losses(batch, plain.update_parameters(batch)), batch)
        theirs = [p.grad for p in plain.network.parameters()]
        pulls = torch.autograd.grad(_term(model), list(model.network.parameters()))
        for own, without, pull in zip(gradients[-1], theirs, pulls, strict=True):
            assert own is not None
            assert without is not None
            torch.testing.assert_close(own - without, pull, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*gradients)


def test_a_checkpoint_holds_nothing_of_it(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", _model(WIDE))
    model = _anchored(WIDE, sources=[folder], importance="equal")
    assert set(model.state_dict()) == set(_model(WIDE).state_dict())
    assert not list(model.objectives.parameters())


COUNT = TaskSpec(env=VECTOR)


def _run(folder: str, steps: int, resumed: Path | None = None) -> tuple[Any, MultiTaskDQN]:
    torch.manual_seed(3)
    data = small_data({"a": COUNT, "b": COUNT}, total_env_steps=steps)
    anchor: Any = partial(Anchor, sources=[folder], importance="equal")
    model = MultiTaskDQN(data.task_infos, NETWORK, objectives=[anchor])
    trainer = quiet_trainer(log_every_n_steps=1)
    trainer.fit(model, data, ckpt_path=resumed)
    return trainer, model


def test_a_resumed_run_is_held_to_the_same_sources(tmp_path: Path) -> None:
    data = small_data({"a": COUNT})
    source = MultiTaskDQN(data.task_infos, NETWORK)
    fit(data, source).save_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    folder = str(tmp_path / "run")
    trainer, first = _run(folder, 120)
    assert float(trainer.callback_metrics["train/anchor"]) > 0.0
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, model = _run(folder, 200, tmp_path / "half.ckpt")
    for theirs, own in zip(_held_to(first), _held_to(model), strict=True):
        assert torch.equal(own, theirs)
    trunk = torch.cat([source.network.state_dict()[name].flatten() for name in TRUNK])
    assert torch.equal(_held_to(model)[0][: len(trunk)], trunk)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(ValueError, match=complaint("Anchor.sources")):
        _run(folder, 300, tmp_path / "half.ckpt")
    loaded = MultiTaskDQN.load_from_checkpoint(tmp_path / "half.ckpt")
    assert_equal_tensors(dict(loaded.hparams), dict(model.hparams))
    quiet_trainer().test(loaded, small_data({"a": COUNT, "b": COUNT}), verbose=False)


def _held_to(model: MultiTaskDQN) -> Penalty:
    (anchor,) = model.objectives
    assert isinstance(anchor, Anchor)
    assert anchor._penalty is not None
    return anchor._penalty


def test_sources_without_fisher_information_or_of_another_step_are_refused(tmp_path: Path) -> None:
    source = _model(WIDE)
    bare = save_run(tmp_path / "bare", source)
    stale = save_run(tmp_path / "stale", source, random_importance(source.network))
    path = tmp_path / "stale" / "checkpoints" / "fisher.pt"
    torch.save({**torch.load(path), "global_step": STEP + 1}, path)
    for folder in (bare, stale, str(tmp_path / "nowhere")):
        with pytest.raises(ValueError, match=complaint("Anchor.sources")):
            _anchored(WIDE, sources=[folder])
    _anchored(WIDE, sources=[bare, stale], importance="equal")


@pytest.mark.parametrize(
    "spoil",
    [Tensor.tolist, lambda one: one[:1], lambda one: one.flatten()],
    ids=["list", "row", "flat"],
)
def test_fisher_information_of_other_forms_than_the_weights_is_refused(
    spoil: Any, tmp_path: Path
) -> None:
    source = _model(WIDE)
    folder = save_run(tmp_path / "run", source, random_importance(source.network))
    path = tmp_path / "run" / "checkpoints" / "fisher.pt"
    found = torch.load(path)
    found["importance"] = {name: spoil(one) for name, one in found["importance"].items()}
    torch.save(found, path)
    with pytest.raises(ValueError, match=complaint("Anchor.sources")):
        _anchored(WIDE, sources=[folder])


def test_a_source_that_could_hold_nothing_is_refused(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", _model(NEW, network=partial(NETWORK, torso=MLPTorso)))
    name = f"Anchor.sources: {folder}/checkpoints/last.ckpt"
    for options in ({}, {"parts": ["heads"]}, {"parts": ["torso.layers.0.bias"]}):
        with pytest.raises(ValueError, match=complaint(name)):
            _anchored(WIDE, sources=[folder], importance="equal", **options)
    with pytest.raises(ValueError, match=complaint("Anchor.parts")):
        _anchored(WIDE, sources=[folder], importance="equal", parts=["tors"])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"importance": "fishy"}, "Anchor.importance"),
        ({"strength": -1.0}, "Anchor.strength"),
        ({"strength": Linear(start=1.0, end=-1.0, duration=9)}, "Anchor.strength"),
        ({"floor": -0.1}, "Anchor.floor"),
        ({"sources": []}, "Anchor.sources"),
        ({"sources": "runs/a"}, "Anchor.sources"),
        ({"parts": []}, "Anchor.parts"),
        ({"parts": "trunk"}, "Anchor.parts"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        Anchor([WIDE], NETWORK([WIDE]), **{"sources": ["a"], **options})
