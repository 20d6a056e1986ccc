from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from helpers.batches import random_batch
from helpers.sources import save_run
from helpers.standalone import Standalone
from torch.utils._pytree import tree_map
from torchjd.aggregation import UPGrad

from lit_mtdqn import DQN, MultiTaskDQN, PolicyDistillation, TaskInfo
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.networks import DuelingHead, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import LiteralSourceGradient
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import Linear, Transition

OLD = TaskInfo(name="old", observation_shape=(3,), num_actions=2)
NEW = TaskInfo(name="new", observation_shape=(3,), num_actions=2)
NETWORK = partial(
    QNetwork, torso=partial(MLPTorso, hidden=[6]), head=partial(LinearHead, init_scale=1.0)
)
RATE = 0.1
SGD: Any = partial(torch.optim.SGD, lr=RATE)


def _source(folder: Path, name: str = "old") -> tuple[DQN, str]:
    torch.manual_seed(1)
    info = TaskInfo(name=name, observation_shape=(3,), num_actions=2)
    model = DQN([info], NETWORK)
    return model, save_run(folder, model)


def _model(source: str, **options: Any) -> tuple[MultiTaskDQN, Standalone]:
    torch.manual_seed(2)
    given = {"tasks_of_source": {"old": "old"}, **options}
    make: Any = partial(LiteralSourceGradient, source=source, **given)
    rest: Any = {"scale": None, "optimizer": SGD, "max_grad_norm": None}
    model = MultiTaskDQN([OLD, NEW], NETWORK, objectives=[make], **rest)
    return model, Standalone(model)


def _rows(batch: Transition, place: int) -> Transition:
    """Return one task's rows as those of the only task."""
    part: Transition = tree_map(lambda tensor: tensor[place : place + 1], batch)
    return part._replace(task=torch.zeros_like(part.task))


def test_an_update_is_the_sum_of_two_gradients_at_two_networks(tmp_path: Path) -> None:
    source, folder = _source(tmp_path / "run")
    model, alone = _model(folder, beta=0.5)
    batch = random_batch([OLD, NEW])
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    td = model.losses(batch).td
    # The source's rows, one half of the batch, take nothing of what the others weigh.
    loss = (td[1] * batch.weight[1]).mean()
    names, parameters = zip(*model.network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    ours = dict(zip(names, found, strict=True))
    # The source's own loss, by the source: it is the target network, too.
    its = _rows(batch, 0)
    source_loss = (source.objective(its, source.network, source.network).loss * its.weight).mean()
    torch.autograd.backward(source_loss)
    theirs = {name: p.grad for name, p in source.network.named_parameters()}
    alone.update(batch)
    for name, parameter in model.network.named_parameters():
        step = torch.zeros_like(parameter)
        for gradient, factor in ((ours[name], 1.0), (theirs.get(name), 0.5)):
            # Rows of heads stand by their names: the source has the last one.
            if gradient is not None:
                step[-len(gradient) :] += factor * gradient
        torch.testing.assert_close(parameter.detach(), before[name] - RATE * step)


def test_the_source_stays_as_it_is_and_is_in_no_checkpoint(tmp_path: Path) -> None:
    _, folder = _source(tmp_path / "run")
    model, alone = _model(folder)
    (objective,) = model.objectives
    assert isinstance(objective, LiteralSourceGradient)
    (frozen,) = objective._frozen
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    alone.update(random_batch([OLD, NEW]))
    assert_equal_tensors(frozen.state_dict(), before)
    assert not any("objectives" in name for name in model.state_dict())


def test_the_factor_follows_its_schedule(tmp_path: Path) -> None:
    _, folder = _source(tmp_path / "run")
    model, _ = _model(folder, beta=Linear(start=1.0, end=0.0, duration=10))
    batch = random_batch([OLD, NEW])
    terms = []
    for updates in (0, 5, 10):
        model.source.clock.updates = updates
        terms.append(float(model.losses(batch).auxiliary["source_gradient"].detach()))
    assert terms == pytest.approx([terms[0], terms[0] / 2, 0.0])
    assert terms[0] != 0.0


def test_an_update_without_rows_of_the_source_has_none_of_its_gradient(tmp_path: Path) -> None:
    _, folder = _source(tmp_path / "run")
    model, _ = _model(folder)
    batch = tree_map(lambda tensor: tensor[1:], random_batch([OLD, NEW]))
    terms = model.losses(batch).auxiliary
    assert float(terms["source_gradient"]) == 0.0
    assert (terms["source_rows"] == 0.0).all()


def test_a_head_of_another_name_is_found(tmp_path: Path) -> None:
    source, folder = _source(tmp_path / "run", "before")
    model, _ = _model(folder, tasks_of_source={"old": "before"})
    (objective,) = model.objectives
    assert isinstance(objective, LiteralSourceGradient)
    own = objective._frozen[0].state_dict()
    came = {n.replace("before", "old"): t for n, t in source.network.state_dict().items()}
    assert_equal_tensors({name: own[name] for name in came}, came)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"tasks_of_source": {}}, "LiteralSourceGradient.tasks_of_source"),
        ({"tasks_of_source": {"older": "old"}}, "LiteralSourceGradient.tasks_of_source"),
        (
            {"tasks_of_source": {"old": "old", "new": "old"}},
            "LiteralSourceGradient.tasks_of_source",
        ),
        ({"beta": -0.1}, "LiteralSourceGradient.beta"),
        ({"beta": Linear(start=1.0, end=-1.0, duration=9)}, "LiteralSourceGradient.beta"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        _model("runs/nowhere", **options)


@pytest.mark.parametrize(
    ("options", "precision", "name"),
    [
        ({"balancer": partial(Aggregated, aggregator=UPGrad)}, "32-true", "model.balancer"),
        ({}, "16-mixed", "trainer.precision"),
    ],
    ids=str,
)
def test_balancers_and_scaled_losses_are_refused(
    options: dict[str, Any], precision: str, name: str, tmp_path: Path
) -> None:
    _, folder = _source(tmp_path / "run")
    make: Any = partial(LiteralSourceGradient, source=folder, tasks_of_source={"old": "old"})
    model = MultiTaskDQN([OLD, NEW], NETWORK, scale=None, objectives=[make], **options)
    (objective,) = model.objectives
    assert isinstance(objective, LiteralSourceGradient)
    trainer = SimpleNamespace(precision=precision)
    with (
        patch.object(MultiTaskDQN, "trainer", trainer),
        pytest.raises(ValueError, match=complaint(name)),
    ):
        objective.bind(model)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (partial(MultiTaskDQN, scale=PopArt), "values of LinearHead under PopArt"),
        (partial(PolicyDistillation, teachers={}), "logits of a policy of LinearHead"),
        (partial(DQN, network=partial(QNetwork, head=DuelingHead)), "values of DuelingHead"),
    ],
)
def test_a_source_of_other_losses_is_refused(make: Any, got: str, tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", make([OLD]))
    with pytest.raises(ValueError, match=complaint("LiteralSourceGradient.source")) as error:
        _model(folder)
    assert "have learned raw values by LinearHead" in str(error.value)
    assert got in str(error.value)


def test_values_with_a_unit_are_refused(tmp_path: Path) -> None:
    _, folder = _source(tmp_path / "run")
    make: Any = partial(LiteralSourceGradient, source=folder, tasks_of_source={"old": "old"})
    with pytest.raises(ValueError, match=complaint("model.scale")):
        Standalone(MultiTaskDQN([OLD, NEW], NETWORK, objectives=[make]))
