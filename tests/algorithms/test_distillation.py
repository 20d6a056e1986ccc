from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

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

from lit_mtdqn import DQN, MultiTaskDQN, PolicyDistillation, TaskInfo, TaskSpec
from lit_mtdqn.balancing import Aggregated
from lit_mtdqn.functional.distillation import match_loss, relative_temperature
from lit_mtdqn.networks import Experts, LinearHead, MinAtarTorso, MLPTorso, QNetwork
from lit_mtdqn.objectives import (
    AttentionTransfer,
    DeepSupervision,
    FeatureRegression,
    Guidance,
    Match,
)
from lit_mtdqn.rollout import Boltzmann
from lit_mtdqn.scaling import PopArt, ReturnNormaliser, ReturnScaling
from lit_mtdqn.types import Linear

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2, weight=3.0),
]
NETWORK = partial(
    QNetwork, torso=partial(MLPTorso, hidden=[6]), head=partial(LinearHead, init_scale=1.0)
)
COUNT = TaskSpec(env=VECTOR)


class Fixed:
    """Says what it was told to, whatever it sees."""

    def __init__(self, infos: list[TaskInfo], unit: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(3)
        actions = max(info.num_actions for info in infos)
        self.values = unit * torch.randn(len(infos), 1, actions, generator=generator)

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        return self.values[task].expand(-1, observation.shape[1], -1)


def _student(teacher: Any = None, **options: Any) -> PolicyDistillation:
    torch.manual_seed(0)
    given: dict[str, Any] = {"network": NETWORK, "optimizer": partial(torch.optim.SGD, lr=0.1)}
    model = PolicyDistillation(INFOS, **{**given, **options})
    teacher = teacher or Fixed(INFOS)
    model.use_teachers({info.name: teacher for info in INFOS})
    return model


def _run(tmp_path: Path, **options: Any) -> str:
    """Return the folder of a teacher's run on two tasks."""
    data = small_data({"a": COUNT, "b": COUNT})
    path = tmp_path / "teacher" / "checkpoints" / "last.ckpt"
    fit(data, MultiTaskDQN(data.task_infos, NETWORK, **options)).save_checkpoint(path)
    return str(tmp_path / "teacher")


@pytest.mark.parametrize("kind", ["policy_kl", "value_kl", "nll", "mse", "softened_mse"])
def test_the_loss_is_the_distance_to_the_teacher_at_what_was_seen(kind: Any) -> None:
    teacher, batch = Fixed(INFOS), random_batch(INFOS)
    model = _student(teacher, match=partial(Match, kind=kind, temperature=0.4))
    Standalone(model)
    losses = model.losses(batch)
    values = model.network.q_values(model.network(batch.observation, batch.task))
    for group, count in enumerate((4, 2)):
        theirs = teacher.values[group].expand(4, -1)[:, :count]
        temperature = relative_temperature(theirs[None], 0.4)[0, 0]
        expected = match_loss(kind, values[group, :, :count], theirs, temperature)
        assert_table(losses.td[group], expected.detach())
    assert_table(losses.td_error, losses.td.detach())
    assert not losses.td_error.requires_grad


@pytest.mark.parametrize("kind", ["policy_kl", "mse"])
def test_mixed_precision_changes_little(kind: Any) -> None:
    batch, teacher = random_batch(INFOS), DQN(INFOS, NETWORK)
    teacher.layers = lambda *given: teacher.network(*given).layers  # type: ignore[assignment]
    model = _student(teacher, match=partial(Match, kind=kind), objectives=[FeatureRegression])
    Standalone(model)
    full = model.losses(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.losses(batch)
    for name in ("td", "feature_regression"):
        terms = [{"td": found.td, **found.auxiliary}[name] for found in (mixed, full)]
        assert terms[0].dtype == torch.float32
        torch.testing.assert_close(*terms, rtol=0.05, atol=0.02)


def test_neither_rewards_nor_what_follows_matter() -> None:
    model, batch = _student(), random_batch(INFOS)
    Standalone(model)
    other = batch._replace(
        reward=batch.reward + 100.0,
        discount=0.5 * batch.discount,
        next_observation=batch.next_observation + 1.0,
    )
    assert torch.equal(model.losses(batch).td, model.losses(other).td)


def test_a_value_student_is_matched_in_the_unit_that_it_learns_in() -> None:
    teacher, batch = Fixed(INFOS, unit=50.0), random_batch(INFOS)
    scale, match = partial(ReturnNormaliser), partial(Match, kind="mse")
    model = _student(teacher, scale=scale, match=match)
    Standalone(model)
    assert model.scale is not None
    model.scale.spread.copy_(torch.tensor([10.0, 100.0]))
    model.scale.offset.copy_(torch.tensor([3.0, -20.0]))
    values = model.network.q_values(model.network(batch.observation, batch.task))
    wanted = (teacher.values[1] + 20.0) / 100.0
    expected = (values[1] - wanted)[:, :2].square().mean(-1)
    assert_table(model.losses(batch).td[1], expected.detach())


def test_weights_balancers_sharings_and_objectives_are_those_of_multi_task_learning() -> None:
    sharing = partial(Experts, num_experts=2)
    aggregator = partial(Aggregated, aggregator=aggregation.PCGrad)
    model = _student(network=partial(NETWORK, sharing=sharing), balancer=aggregator)
    runner, batch = Standalone(model), random_batch(INFOS)
    before = {name: p.clone() for name, p in model.network.named_parameters()}
    (losses,) = runner.update(batch)
    assert set(losses.auxiliary) == {"load_balance"}
    changed = [not torch.equal(p, before[n]) for n, p in model.network.named_parameters()]
    assert all(changed)
    weighed = _student()
    Standalone(weighed)
    by_group, _ = weighed.group_losses(weighed.losses(batch), batch)
    mean = (weighed.losses(batch).td * batch.weight).mean(-1)
    assert_table(by_group, (mean * torch.tensor([1.0, 3.0])).detach())


def test_a_student_becomes_its_teacher() -> None:
    teacher, batch = Fixed(INFOS), random_batch(INFOS, rows=16)
    for kind in ("policy_kl", "value_kl", "mse"):
        model = _student(teacher, match=partial(Match, kind=kind, temperature=1.0))
        runner = Standalone(model)
        first = float(model.losses(batch).td.detach().mean())
        runner.update(*[batch] * 300)
        assert float(model.losses(batch).td.detach().mean()) < 0.05 * first
        agreed = model.batch_metrics(batch, model.network(batch.observation, batch.task))
        assert {name: float(share) for name, share in agreed.items()} == {
            "agreement/wide": 1.0,
            "agreement/narrow": 1.0,
        }


class Ask(Callback):
    """Notes metrics, and what a fit has acted by."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.names |= set(trainer.callback_metrics)


def test_a_run_learns_from_the_folder_of_another_and_its_checkpoint_needs_no_teacher(
    tmp_path: Path,
) -> None:
    folder = _run(tmp_path)
    data, ask = small_data({"a": COUNT, "b": COUNT}), Ask()
    model = PolicyDistillation(data.task_infos, {"a": folder, "b": folder}, network=NETWORK)
    trainer = fit(data, model, ask, log_every_n_steps=1)
    assert ask.names >= {"train/match/a", "train/match", "train/agreement/b"}
    assert not any("td_loss" in name for name in ask.names)
    trainer.save_checkpoint(tmp_path / "student.ckpt")
    (Path(folder) / "checkpoints" / "last.ckpt").unlink()
    loaded = PolicyDistillation.load_from_checkpoint(tmp_path / "student.ckpt")
    assert_same_state(loaded, model)
    assert not any("teacher" in name for name in loaded.state_dict())
    quiet_trainer().test(loaded, small_data({"a": COUNT, "b": COUNT}), verbose=False)


def test_teachers_stay_as_they_are(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    data = small_data({"a": COUNT, "b": COUNT})
    model = PolicyDistillation(data.task_infos, {"a": folder, "b": folder}, network=NETWORK)
    fit(data, model)
    assert model._teachers is not None
    (teacher,) = model._teachers._teachers
    kept = MultiTaskDQN.load_from_checkpoint(Path(folder) / "checkpoints" / "last.ckpt")
    state = teacher.network.state_dict()  # type: ignore[union-attr]
    assert_equal_tensors(state, kept.network.state_dict())


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25), (Linear(start=1.0, end=0.0, duration=10), 0.6)],
    ids=str,
)
def test_the_teacher_acts_in_its_share_of_the_steps(share: Any, expected: float) -> None:
    teacher = Fixed(INFOS)
    model = _student(teacher, teacher_share=share)
    Standalone(model)
    model.network.eval()
    model._clock.updates = 4
    observation, task = torch.randn(2, 2000, 3), torch.tensor([0, 1])
    found = model.exploring_values(observation, task)
    theirs = teacher.action_values(observation, task)
    by_teacher = (found == theirs).all(-1).float().mean()
    assert float(by_teacher) == pytest.approx(expected, abs=0.03)
    own = (found == model.action_values(observation, task)).all(-1).float().mean()
    assert float(own + by_teacher) == 1.0


def test_tasks_without_a_teacher_are_acted_by_the_student() -> None:
    infos = [INFOS[0], TaskInfo(name="held", observation_shape=(3,), num_actions=2, learns=False)]
    model = PolicyDistillation(infos, network=NETWORK, teacher_share=1.0)
    teacher = Fixed(infos)
    model.use_teachers({"wide": teacher})
    Standalone(model)
    model.network.eval()
    observation, task = torch.randn(2, 5, 3), torch.tensor([1, 0])
    found = model.exploring_values(observation, task)
    assert torch.equal(found[0], model.action_values(observation, task)[0])
    assert torch.equal(found[1], teacher.values[0].expand(5, -1))
    alone = model.exploring_values(observation[:1], task[:1])
    # Products of one group and of two may be rounded in other orders.
    torch.testing.assert_close(alone[0], found[0])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"teacher_share": 1.5}, "teacher_share"),
        ({"labels": "kept"}, "labels"),
        ({"scale": PopArt, "match": partial(Match, kind="mse")}, "model.scale"),
        ({"scale": ReturnNormaliser}, "model.scale"),
        ({"scale": ReturnScaling, "match": partial(Match, kind="value_kl")}, "model.scale"),
        ({"teacher_share": Linear(start=1.0, end=-0.5, duration=9)}, "teacher_share"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        PolicyDistillation(INFOS, network=NETWORK, **options)


def test_a_missing_teacher_is_told_before_the_first_env_step(tmp_path: Path) -> None:
    data = small_data({"a": COUNT})
    model = PolicyDistillation(data.task_infos, {"a": str(tmp_path)}, network=NETWORK)
    with pytest.raises(ValueError, match=complaint("teachers.a")):
        fit(data, model)
    assert data.clock.total_env_steps == 0
    two = small_data({"a": COUNT, "b": COUNT})
    half = PolicyDistillation(two.task_infos, {"b": str(tmp_path)}, network=NETWORK)
    with pytest.raises(ValueError, match=complaint("teachers")) as error:
        fit(two, half)
    assert "['a', 'b']. Got ['b']" in str(error.value)


def test_objectives_of_temporal_differences_are_refused() -> None:
    deep = partial(QNetwork, torso=partial(MLPTorso, hidden=[6, 5]))
    with pytest.raises(ValueError, match=complaint("model.objectives")):
        _student(network=deep, objectives=[DeepSupervision])


def test_objectives_of_values_are_refused_beside_logits() -> None:
    guidance: Any = partial(Guidance, teachers={"wide": "run"})
    with pytest.raises(ValueError, match=complaint("model.objectives")) as error:
        _student(objectives=[guidance])
    assert "Guidance" in str(error.value)
    _student(objectives=[guidance], match=partial(Match, kind="mse"))


def test_squared_distances_may_be_weighed_by_returns() -> None:
    _student(scale=ReturnScaling, match=partial(Match, kind="mse"))


@pytest.mark.parametrize("share", [0.5, Linear(start=1.0, end=0.0, duration=10)], ids=str)
def test_actions_are_not_drawn_among_logits_and_values_at_one_temperature(share: Any) -> None:
    for options in ({}, {"match": partial(Match, kind="mse")}, {"teacher_share": 1.0}):
        model = _student(**{"teacher_share": share, **options})
        model.trainer = Mock()
        model.trainer.datamodule.exploration = Boltzmann()
        if options:
            model._require_one_unit_of_actors()
            continue
        with pytest.raises(ValueError, match=complaint("data.boltzmann")):
            model._require_one_unit_of_actors()


def test_who_acts_follows_from_seed_rank_task_and_clock() -> None:
    def drawn(number: int, seed: int = 0, rank: int = 0, steps: int = 0) -> list[float]:
        model = _student(teacher_share=0.5)
        Standalone(model)
        torch.manual_seed(seed)
        model.trainer.global_rank = rank  # type: ignore[misc]
        model.source.clock.env_steps[INFOS[number].name] = steps
        state = torch.get_rng_state()
        found: list[float] = model._draws(number, 3).tolist()
        assert torch.equal(torch.get_rng_state(), state)
        return found

    first = drawn(0)
    assert drawn(0) == first
    others = [drawn(1), drawn(0, seed=1), drawn(0, rank=1), drawn(0, steps=8)]
    assert all(other != first for other in others)


def test_a_run_with_a_mixture_of_actors_can_be_repeated() -> None:
    rewards = []
    for _ in range(2):
        torch.manual_seed(0)
        data, ask = small_data({"a": COUNT, "b": COUNT}), Ask()
        model = PolicyDistillation(data.task_infos, network=NETWORK, teacher_share=0.5)
        model.use_teachers(dict.fromkeys(("a", "b"), Fixed(data.task_infos)))
        fit(data, model, ask)
        rewards.append(model.network.state_dict())
        # Draws of others change nothing.
        torch.rand(3)
    assert_equal_tensors(*rewards)


def test_policy_students_tell_of_entropy_and_never_of_values() -> None:
    data, ask = small_data({"a": COUNT}), Ask()
    names = {}
    for kind in ("policy_kl", "value_kl"):
        data, ask = small_data({"a": COUNT}), Ask()
        match: Any = partial(Match, kind=kind)
        model = PolicyDistillation(data.task_infos, network=NETWORK, match=match)
        model.use_teachers({"a": Fixed(data.task_infos)})
        trainer = fit(data, model, ask, log_every_n_steps=1)
        names[kind] = ask.names | set(trainer.callback_metrics)
    of_values = {"train/q_mean/a", "train/action_gap/a", "val/q_bias/a"}
    assert names["value_kl"] - names["policy_kl"] == of_values
    assert names["policy_kl"] - names["value_kl"] == {"train/policy_entropy/a"}


def test_stored_labels_are_those_that_would_be_asked_for() -> None:
    states = []
    for labels in ("sampled", "stored"):
        torch.manual_seed(0)
        tasks = {"a": COUNT, "b": TaskSpec(env=VECTOR, n_step=3)}
        data = small_data(tasks)
        model = PolicyDistillation(data.task_infos, network=NETWORK, labels=labels)
        teacher = Seeing()
        model.use_teachers({"a": teacher, "b": teacher})
        fit(data, model)
        states.append(model.network.state_dict())
        assert teacher.groups == (2 if labels == "stored" else 4)
    assert_equal_tensors(*states)


class Seeing:
    """Says values of what it sees, and notes how many rows it has seen at a time."""

    def __init__(self) -> None:
        self.groups = 0

    def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
        self.groups = observation.shape[1]
        total = observation.sum(-1, keepdim=True) + task.view(-1, 1, 1)
        return torch.cat([total.sin(), total.cos()], -1)


def test_stored_labels_are_not_for_tasks_that_are_not_played(tmp_path: Path) -> None:
    data = small_data({"a": COUNT})
    model = PolicyDistillation(data.task_infos, network=NETWORK)
    model.use_teachers({"a": Seeing()})
    fit(data, model)
    data.dump_replay(tmp_path)
    stored = TaskSpec(env=VECTOR, replay=str(tmp_path / "a"))
    options: dict[str, Any] = {"total_env_steps": None, "total_updates": 4}
    data = small_data({"a": stored}, **options)
    model = PolicyDistillation(data.task_infos, network=NETWORK, labels="stored")
    model.use_teachers({"a": Seeing()})
    with pytest.raises(ValueError, match=complaint("tasks.a.replay")):
        fit(data, model)


def test_what_is_stored_stays_the_same_for_a_data_module() -> None:
    data = small_data({"a": COUNT})
    for labels in ("sampled", "stored"):
        model = PolicyDistillation(data.task_infos, network=NETWORK, labels=labels)
        model.use_teachers({"a": Seeing()})
        if labels == "sampled":
            fit(data, model)
            data.total_env_steps = 200
            continue
        with pytest.raises(ValueError, match=complaint("model")):
            fit(data, model)


def test_students_of_policies_teach_policies_and_no_values(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    data = small_data({"a": COUNT, "b": COUNT})
    first = PolicyDistillation(data.task_infos, {"a": folder, "b": folder}, network=NETWORK)
    path = str(tmp_path / "student.ckpt")
    fit(data, first).save_checkpoint(path)
    mixed = {"a": path, "b": folder}
    data = small_data({"a": COUNT, "b": COUNT})
    second = PolicyDistillation(data.task_infos, mixed, network=NETWORK)
    fit(data, second)
    batch = random_batch(data.task_infos)
    # What is a policy already is not sharpened.
    student = second.network.q_values(second.network(batch.observation, batch.task))
    theirs = first.network.q_values(first.network(batch.observation, batch.task))
    expected = match_loss("policy_kl", student[0], theirs[0], 1.0)
    found = second.losses(batch).td
    assert_table(found[0], expected.detach())
    values = second.teacher_values(batch)[1:]
    temperature = relative_temperature(values, 0.5)[0]
    assert_table(found[1], match_loss("policy_kl", student[1], values[0], temperature).detach())
    for kind in ("value_kl", "mse"):
        data = small_data({"a": COUNT, "b": COUNT})
        match: Any = partial(Match, kind=kind)
        third = PolicyDistillation(data.task_infos, mixed, network=NETWORK, match=match)
        with pytest.raises(ValueError, match=complaint("teachers")) as error:
            fit(data, third)
        assert "policies for a" in str(error.value)
    guided = MultiTaskDQN(data.task_infos, NETWORK, objectives=[partial(Guidance, teachers=mixed)])
    with pytest.raises(ValueError, match=complaint("teachers")):
        fit(small_data({"a": COUNT, "b": COUNT}), guided)


def test_a_teacher_may_go_on_learning() -> None:
    model, batch = _student(), random_batch(INFOS)
    torch.manual_seed(1)
    teacher = MultiTaskDQN(INFOS, NETWORK, optimizer=partial(torch.optim.SGD, lr=0.1))
    model.use_teachers(dict.fromkeys(("wide", "narrow"), teacher))
    Standalone(model)
    before = model.teacher_values(batch)
    Standalone(teacher).update(batch)
    after = model.teacher_values(batch)
    assert not torch.allclose(before, after)
    expected = teacher.action_values(batch.observation, batch.task)
    torch.testing.assert_close(after[0], expected[0])


def test_a_student_learns_from_a_teacher_of_images(tmp_path: Path) -> None:
    pytest.importorskip("minatar", reason="needs the extra `minatar`")
    tasks = {"breakout": TaskSpec(env="MinAtar/Breakout-v1")}
    torso = partial(MinAtarTorso, channels=4, hidden=8)
    large: Any = partial(QNetwork, torso=torso)
    small: Any = partial(QNetwork, torso=partial(torso, channels=2))
    data = small_data(tasks)
    path = str(tmp_path / "teacher.ckpt")
    fit(data, MultiTaskDQN(data.task_infos, large)).save_checkpoint(path)
    data = small_data(tasks)
    objectives: Any = [FeatureRegression, AttentionTransfer]
    model = PolicyDistillation(
        data.task_infos, {"breakout": path}, network=small, objectives=objectives
    )
    trainer = fit(data, model, log_every_n_steps=1)
    names = set(trainer.callback_metrics)
    assert {"train/feature_regression", "train/attention_transfer"} <= names
    known = MultiTaskDQN.load_from_checkpoint(path)
    shape = data.task_infos[0].observation_shape
    shown = torch.randint(0, 2, (1, 5, *shape), dtype=torch.uint8)
    batch = random_batch([TaskInfo(name="x", observation_shape=(1,), num_actions=2)])
    batch = batch._replace(observation=shown)
    expected = known.action_values(shown, torch.tensor([0]))
    torch.testing.assert_close(model.teacher_values(batch), expected)
