import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from helpers.asserts import assert_table, complaint
from helpers.batches import random_batch
from helpers.counting_env import VECTOR
from helpers.runs import fit, quiet_trainer, small_data
from helpers.sources import save_run
from helpers.standalone import Standalone
from torch import Tensor
from torchjd import aggregation

from lit_mtdqn import MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.algorithms.teachers import Teachers
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.functional.distillation import match_loss
from lit_mtdqn.networks import Columns, LinearHead, MLPTorso, QNetwork
from lit_mtdqn.objectives import Guidance
from lit_mtdqn.scaling import PopArt, ReturnScaling
from lit_mtdqn.types import Linear, TaskScores

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
]
NETWORK = partial(
    QNetwork, torso=partial(MLPTorso, hidden=[6]), head=partial(LinearHead, init_scale=1.0)
)
COUNT = TaskSpec(env=VECTOR, score_range=(0.0, 10.0))


class Fixed:
    """Says what it was told to, whatever it sees."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.values = torch.randn(3, 1, 4, generator=generator)

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        return self.values[task].expand(-1, observation.shape[1], -1)


def _guided(
    teachers: Any = ("wide", "narrow"), infos: Any = INFOS, **options: Any
) -> tuple[MultiTaskDQN, Fixed]:
    """Return a learner on given batches, guided in some tasks."""
    torch.manual_seed(0)
    names = ("network", "scale", "balancer")
    settled: dict[str, Any] = {name: options.pop(name) for name in names if name in options}
    guidance: Any = partial(Guidance, teachers=dict.fromkeys(teachers, ""), **options)
    given: dict[str, Any] = {"network": NETWORK, "objectives": [guidance], "scale": None}
    model = MultiTaskDQN(infos, **{**given, **settled})
    fixed = Fixed()
    found = Teachers(infos, dict.fromkeys(teachers, fixed))
    with patch.object(model, "load_teachers", lambda *_: found):
        Standalone(model)
    scores = TaskScores(info.name for info in infos)
    model.trainer.datamodule.scores = scores  # type: ignore[attr-defined]
    return model, fixed


def _term(model: MultiTaskDQN, updates: int = 0) -> Tensor:
    model.source.clock.updates = updates
    return model.losses(random_batch(INFOS)).auxiliary["guidance"].detach()


def _distance(model: MultiTaskDQN, fixed: Fixed, group: int, count: int) -> Tensor:
    """Return the weighted distances of a task in raw values."""
    batch = random_batch(INFOS)
    values = model.raw_values(
        model.network.q_values(model.network(batch.observation, batch.task)), batch.task
    )
    theirs = fixed.values[group].expand(4, -1)[:, :count]
    found = match_loss("value_kl", values[group, :, :count].detach(), theirs, 0.3)
    return found * batch.weight[group]


def test_the_term_is_the_weighted_distance_to_the_teacher_beside_the_td_loss() -> None:
    model, fixed = _guided(weight=2.0, temperature=0.3, relative=False)
    plain = MultiTaskDQN(INFOS, NETWORK, scale=None)
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = random_batch(INFOS)
    assert torch.equal(model.losses(batch).td, plain.losses(batch).td)
    for group, count in enumerate((4, 2)):
        assert_table(_term(model)[group], 2.0 * _distance(model, fixed, group, count))


def test_the_weight_may_fall_to_0_on_a_schedule_of_updates() -> None:
    schedule = Linear(start=1.0, end=0.0, duration=10)
    model, _ = _guided(weight=schedule)
    full = _term(model)
    assert_table(_term(model, 5), 0.5 * full)
    # Then nobody is asked any more.
    with patch.object(Fixed, "action_values", side_effect=AssertionError):
        assert (_term(model, 10) == 0.0).all()


def test_the_weight_may_follow_what_a_task_lacks_to_its_teacher() -> None:
    plain, _ = _guided()
    model, _ = _guided(by_gap=True, teacher_scores={"narrow": 0.8})
    scores = model.source.scores
    scores.add_score("wide", 0.25)
    scores.add_score("narrow", 0.6)
    expected = _term(plain) * torch.tensor([0.75, 0.25]).view(2, 1)
    assert_table(_term(model), expected)
    scores.add_score("narrow", 0.9)
    assert (_term(model)[1] == 0.0).all()
    scores.add_score("narrow", -3.0)
    assert_table(_term(model)[1], _term(plain)[1])


def test_scores_of_teachers_are_those_of_their_runs_tests(tmp_path: Path) -> None:
    folder = save_run(tmp_path, MultiTaskDQN(INFOS, NETWORK))
    tests = tmp_path / "report" / "test_scores.csv"
    tests.parent.mkdir()
    # Scored as the student's tasks are, which may have other ranges: (6 - 0) / 10.
    infos = [replace(INFOS[0], score_range=(0.0, 10.0)), *INFOS[1:]]
    for row, expected in (("wide,6.0,,3.0", 0.6), ("other,6.0,,3.0", 1.0)):
        tests.write_text(f"task,mean,success,score\n{row}\n")
        guidance: Any = partial(Guidance, teachers={"wide": folder}, by_gap=True)
        model = MultiTaskDQN(infos, NETWORK, objectives=[guidance], scale=None)
        Standalone(model)
        scores = TaskScores(["wide", "narrow"])
        model.trainer.datamodule.scores = scores  # type: ignore[attr-defined]
        scores.add_score("wide", 0.3)
        (objective,) = model.objectives
        assert isinstance(objective, Guidance)
        assert objective._weight(0) == pytest.approx(1.0 - 0.3 / expected)
    tests.write_text("task,mean,success,score\nwide,-1.0,,3.0\n")
    Standalone(model)
    assert isinstance(objective, Guidance)
    assert objective._weight(0) == 0.0


def test_the_score_of_a_teacher_is_that_of_its_own_run_wherever_its_file_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(save_run(tmp_path / "run", MultiTaskDQN(INFOS, NETWORK)))
    last = folder / "checkpoints" / "last.ckpt"
    for report, score in ((folder / "report", 0.6), (tmp_path / "report", 0.1)):
        report.mkdir()
        (report / "test_scores.csv").write_text(f"task,mean,success,score\nwide,1.0,{score},\n")
    before = last.parent / "previous" / "last.ckpt"
    before.parent.mkdir()
    shutil.copy(last, before)
    # The last one is damaged, and the one before it is taken.
    last.write_bytes(last.read_bytes()[:100])
    with pytest.warns(UserWarning, match="previous"):
        assert Teachers(INFOS, {"wide": str(folder)}).tested_score(0) == 0.6
    # A file by itself has no run.
    bare = tmp_path / "bare" / "teacher.ckpt"
    bare.parent.mkdir()
    shutil.copy(before, bare)
    monkeypatch.chdir(bare.parent)
    assert Teachers(INFOS, {"wide": "teacher.ckpt"}).tested_score(0) is None


def test_tasks_of_which_no_training_episodes_come_have_no_gap_to_follow() -> None:
    for options in ({"learns": False}, {"replay": "runs/first"}):
        data = small_data({"a": COUNT, "b": COUNT})
        guidance = partial(Guidance, teachers={"b": ""}, by_gap=True)
        model = MultiTaskDQN(data.task_infos, NETWORK, objectives=[guidance])
        (objective,) = model.objectives
        assert isinstance(objective, Guidance)
        data.tasks["b"] = replace(COUNT, **options)
        found = Teachers(data.task_infos, {"b": Fixed()})
        with (
            patch.object(model, "load_teachers", lambda *_, found=found: found),
            patch.object(MultiTaskDQN, "trainer", SimpleNamespace(datamodule=data)),
            pytest.raises(ValueError, match=complaint("tasks.b")),
        ):
            objective.prepare(model)


def test_raw_returns_are_no_scores_to_follow() -> None:
    data = small_data({"a": COUNT, "b": TaskSpec(env=VECTOR)})
    names: Any
    for names in (["a", "b"], ["a"]):
        guidance = partial(Guidance, teachers=dict.fromkeys(names, ""), by_gap=True)
        model = MultiTaskDQN(data.task_infos, NETWORK, objectives=[guidance])
        found = Teachers(data.task_infos, dict.fromkeys(names, Fixed()))
        with patch.object(model, "load_teachers", lambda *_, found=found: found):
            if names == ["a"]:
                Standalone(model)
                continue
            with pytest.raises(ValueError, match=complaint("tasks.b.score_range")):
                fit(data, model)
    assert data.clock.total_env_steps == 0


@pytest.mark.parametrize("kind", ["value_kl", "mse"])
def test_mixed_precision_changes_little(kind: str) -> None:
    model, _ = _guided(infos=EARLIER, kind=kind, scale=PopArt)
    batch = random_batch(EARLIER, groups=[0])
    full = model.losses(batch).auxiliary["guidance"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.losses(batch).auxiliary["guidance"]
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, full)
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0.01)


def test_it_tells_how_far_each_taught_task_is_and_how_often_it_acts_alike() -> None:
    model, fixed = _guided(["narrow"], infos=EARLIER, kind="mse")
    batch = random_batch(EARLIER, groups=[0])
    prediction = model.network(batch.observation, batch.task)
    found = model.batch_metrics(batch, prediction)
    assert found.keys() == {"match/narrow", "agreement/narrow"}
    term = model.losses(batch).auxiliary["guidance"].detach()
    assert_table(found["match/narrow"], (term / batch.weight).mean())
    values = model.network.action_values(batch.observation, torch.tensor([1]))[0, :, :2]
    alike = values.argmax(-1) == fixed.values[1, 0, :2].argmax(-1)
    assert_table(found["agreement/narrow"], alike.float().mean())
    both, _ = _guided()
    batch = random_batch(INFOS, groups=[1])
    found = both.batch_metrics(batch, both.network(batch.observation, batch.task))
    assert found.keys() == {"match/narrow", "agreement/narrow"}


def test_tasks_without_a_teacher_learn_from_rewards_alone() -> None:
    model, _ = _guided(["narrow"])
    term = _term(model)
    assert (term[0] == 0.0).all()
    assert (term[1] > 0.0).all()


def test_teachers_are_followed_in_raw_values_whatever_the_scale() -> None:
    model, fixed = _guided(scale=PopArt, temperature=0.3, relative=True)
    assert model.scale is not None
    relative = _term(model)
    model.scale.spread.copy_(torch.tensor([10.0, 0.5]))
    model.scale.offset.copy_(torch.tensor([3.0, -20.0]))
    with torch.no_grad():
        # The same raw values in the new unit.
        spread, offset = model.scale.spread, model.scale.offset
        model.network.head.rescale_(1.0 / spread, -offset / spread)
    torch.testing.assert_close(_term(model), relative, rtol=1e-4, atol=1e-5)
    assert fixed.values.requires_grad is False


EARLIER = [INFOS[0], replace(INFOS[1], learns=False)]


@pytest.mark.parametrize("network", ["shared", "columns"])
def test_heads_of_tasks_that_do_not_learn_go_on_saying_what_teachers_say_elsewhere(
    network: str,
) -> None:
    make = partial(NETWORK, sharing=partial(Columns, coupling="cross_stitch"))
    given: dict[str, Any] = {"network": make} if network == "columns" else {}
    model, fixed = _guided(["narrow"], infos=EARLIER, kind="mse", weight=3.0, **given)
    batch = random_batch(EARLIER, groups=[0])
    mask = torch.tensor([True, False, False, False]).expand(1, 4, 4)
    for extra in ({}, {"action_mask": mask}):
        term = model.losses(batch._replace(extra=extra)).auxiliary["guidance"]
        other = torch.tensor([1])
        values = model.network.action_values(batch.observation, other)[0, :, :2]
        theirs = fixed.values[1, :, :2].expand(4, -1)
        unit = (theirs[0, 0] - theirs[0, 1]) / 2.0
        distance = ((values - theirs) / unit).square().mean(-1)
        assert_table(term.detach(), 3.0 * distance * batch.weight)
    gradients = torch.autograd.grad(term.sum(), list(model.network.parameters()))
    named = zip(model.network.named_parameters(), gradients, strict=True)
    found = {name: float(gradient.abs().sum()) for (name, _), gradient in named}
    assert all(found[name] > 0.0 for name in found if "weight" in name)


def test_what_earlier_heads_say_is_followed_in_raw_values() -> None:
    model, fixed = _guided(["narrow"], infos=EARLIER, kind="mse", scale=PopArt)
    assert model.scale is not None
    model.scale.spread.copy_(torch.tensor([3.0, 0.5]))
    model.scale.offset.copy_(torch.tensor([1.0, -20.0]))
    batch, other = random_batch(EARLIER, groups=[0]), torch.tensor([1])
    values = model.raw_values(model.network.action_values(batch.observation, other), other)
    theirs = fixed.values[1, :, :2].expand(4, -1)
    # Half the difference of two actions, squared, is their variance.
    unit = (theirs[0, 0] - theirs[0, 1]) / 2.0
    expected = ((values[0, :, :2] - theirs) / unit).square().mean(-1) * batch.weight
    assert_table(model.losses(batch).auxiliary["guidance"].detach(), expected)


def test_earlier_heads_are_balanced_with_the_task_whose_observations_they_see() -> None:
    balancer = partial(Aggregated, aggregator=aggregation.Mean)
    infos = [INFOS[0], replace(INFOS[1], name="second", learns=True), EARLIER[1]]
    gradients = []
    for options in ({}, {"balancer": balancer}):
        model, _ = _guided(["narrow"], infos=infos, **options)
        batch = random_batch(infos, groups=[0, 1])
        model.accumulate_gradients(model.losses(batch, model.update_parameters(batch)), batch)
        gradients.append([p.grad.clone() for p in model.network.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(*gradients)


def test_it_is_balanced_with_its_task() -> None:
    balancer = partial(Aggregated, aggregator=aggregation.Mean)
    gradients = []
    for options in ({}, {"balancer": balancer}):
        model, _ = _guided(**options)
        losses = model.losses(random_batch(INFOS), model.update_parameters(random_batch(INFOS)))
        model.accumulate_gradients(losses, random_batch(INFOS))
        gradients.append([p.grad.clone() for p in model.network.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(*gradients)


def test_a_run_is_guided_by_the_folder_of_another(tmp_path: Path) -> None:
    data = small_data({"a": COUNT, "b": COUNT})
    teacher = MultiTaskDQN(data.task_infos, NETWORK)
    folder = tmp_path / "teacher"
    fit(data, teacher).save_checkpoint(folder / "checkpoints" / "last.ckpt")
    guidance = partial(Guidance, teachers={"b": str(folder)}, by_gap=True)
    data = small_data({"a": COUNT, "b": COUNT})
    model = MultiTaskDQN(data.task_infos, NETWORK, objectives=[guidance])
    trainer = fit(data, model, log_every_n_steps=1)
    assert float(trainer.callback_metrics["train/guidance"]) > 0.0
    assert {"train/match/b", "train/agreement/b"} <= trainer.callback_metrics.keys()
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (folder / "checkpoints" / "last.ckpt").unlink()
    loaded = MultiTaskDQN.load_from_checkpoint(tmp_path / "last.ckpt")
    quiet_trainer().test(loaded, small_data({"a": COUNT, "b": COUNT}), verbose=False)
    with pytest.raises(ValueError, match=complaint("teachers.b")):
        fit(small_data({"a": COUNT, "b": COUNT}), loaded)


def test_a_distance_without_a_unit_is_not_weighed_with_losses_of_rewards(tmp_path: Path) -> None:
    infos = small_data({"a": COUNT}).task_infos
    folder = save_run(tmp_path / "run", MultiTaskDQN(infos, NETWORK))
    for kind in ("value_kl", "mse"):
        guidance: Any = partial(Guidance, teachers={"a": folder}, kind=kind)
        model = MultiTaskDQN(infos, NETWORK, objectives=[guidance], scale=ReturnScaling)
        if kind == "mse":
            fit(small_data({"a": COUNT}), model)
            continue
        with pytest.raises(ValueError, match=complaint("model.scale")):
            fit(small_data({"a": COUNT}), model)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"kind": "policy_kl"}, "Guidance.kind"),
        ({"weight": -1.0}, "Guidance.weight"),
        ({"weight": Linear(start=1.0, end=-1.0, duration=9)}, "Guidance.weight"),
        ({"teachers": {}}, "Guidance.teachers"),
        ({"teacher_scores": {"wide": 0.0}}, "Guidance.teacher_scores"),
        ({"teacher_scores": {"other": 1.0}}, "Guidance.teacher_scores"),
        ({"temperature": 0.0}, "match.temperature"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        Guidance(INFOS, NETWORK(INFOS), **{"teachers": {"wide": "run"}, **options})
