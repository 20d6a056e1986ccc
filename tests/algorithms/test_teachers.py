import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.counting_env import VECTOR
from helpers.runs import fit, small_data
from helpers.saved_runs import NAMES_OWN_TORSO, save_run, save_run_of_own_torso
from torch import Tensor

from lit_mtdqn import DQN, MultiTaskDQN, TaskInfo, TaskSpec
from lit_mtdqn.algorithms.teachers import Teachers
from lit_mtdqn.networks import MLPTorso, Prior, QNetwork
from lit_mtdqn.scaling import PopArt

NETWORK = partial(QNetwork, torso=partial(MLPTorso, hidden=[8]))
COUNT = TaskSpec(env=VECTOR)
THREE_ACTIONS = TaskSpec(env=VECTOR, kwargs={"num_actions": 3})


def _student(**actions: int) -> list[TaskInfo]:
    """Return tasks that see more than their teachers do."""
    return [
        TaskInfo(name=name, observation_shape=(5,), num_actions=count)
        for name, count in actions.items()
    ]


def _run(folder: Path, tasks: dict[str, TaskSpec], **options: Any) -> tuple[str, DQN]:
    data = small_data(tasks)
    model = MultiTaskDQN(data.task_infos, NETWORK, **{"scale": PopArt, **options})
    path = folder / "checkpoints" / "last.ckpt"
    fit(data, model).save_checkpoint(path)
    return str(folder), model


def _observation(groups: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(groups, 4, 5, generator=generator)
    observation[..., 3:] = 0.0
    return observation


def test_specialists_and_generalists_answer_as_one_in_raw_values(tmp_path: Path) -> None:
    both, model = _run(tmp_path / "both", {"a": COUNT, "b": THREE_ACTIONS})
    single, other = _run(tmp_path / "single", {"c": COUNT})
    infos = _student(b=3, c=2, a=2)
    teachers = Teachers(infos, {"a": both, "b": both, "c": single})
    observation = _observation(4)
    found = teachers.action_values(observation, torch.tensor([2, 0, 1, 2]))
    assert found.shape == (4, 4, 3)
    seen = observation[..., :3]
    expected = model.action_values(seen[[0, 1, 3]], torch.tensor([0, 1, 0]))
    for group, values in zip((0, 1, 3), expected, strict=True):
        torch.testing.assert_close(found[group], values)
    alone = other.action_values(seen[2:3], torch.tensor([0]))[0]
    torch.testing.assert_close(found[2, :, :2], alone)
    assert (found[2, :, 2] == 0.0).all()


def test_smaller_students_are_seen_with_zeros_where_a_teacher_sees_more(tmp_path: Path) -> None:
    path, model = _run(tmp_path, {"a": COUNT})
    infos = [TaskInfo(name="a", observation_shape=(2,), num_actions=2)]
    observation = torch.randn(1, 4, 2)
    found = Teachers(infos, {"a": path}).action_values(observation, torch.tensor([0]))
    padded = torch.cat([observation, torch.zeros(1, 4, 1)], -1)
    torch.testing.assert_close(found, model.action_values(padded, torch.tensor([0])))


def test_a_teacher_is_asked_under_its_own_name_for_a_task(tmp_path: Path) -> None:
    path, model = _run(tmp_path, {"a": COUNT, "b": COUNT})
    teachers = Teachers(_student(mine=2), {"mine": path}, {"mine": "b"})
    observation = _observation(1)
    found = teachers.action_values(observation, torch.tensor([0]))
    expected = model.action_values(observation[..., :3], torch.tensor([1]))
    torch.testing.assert_close(found, expected)


def test_a_teacher_of_one_task_needs_no_name(tmp_path: Path) -> None:
    path, _ = _run(tmp_path, {"a": COUNT})
    teachers = Teachers(_student(mine=2), {"mine": path})
    assert teachers.knows(torch.tensor([0])).tolist() == [True]
    Teachers(_student(mine=2), {"mine": path}, {"mine": "a"})
    with pytest.raises(ValueError, match=complaint("teachers.mine")):
        Teachers(_student(mine=2), {"mine": path}, {"mine": "b"})


def test_a_head_that_a_run_held_out_teaches_with_a_warning(tmp_path: Path) -> None:
    held_out = TaskSpec(env=VECTOR, acts=False, learns=False)
    path, model = _run(tmp_path, {"a": COUNT, "b": held_out})
    with pytest.warns(UserWarning, match="answers as b, which its run held out; it learned a"):
        teachers = Teachers(_student(b=2), {"b": path})
    # A head may have been moved there.
    observation = _observation(1)
    found = teachers.action_values(observation, torch.tensor([0]))
    expected = model.action_values(observation[..., :3], torch.tensor([1]))
    torch.testing.assert_close(found, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Teachers(_student(b=2), {"b": path}, {"b": "a"})


def test_layers_are_shown_teacher_by_teacher(tmp_path: Path) -> None:
    both, model = _run(tmp_path / "both", {"a": COUNT, "b": COUNT})
    single, other = _run(tmp_path / "single", {"c": COUNT})
    teachers = Teachers(_student(a=2, b=2, c=2, d=2), {"b": both, "c": single, "a": both})
    observation = _observation(4)
    shown = teachers.layers(observation, torch.tensor([2, 3, 1, 0]))
    assert [groups for groups, _ in shown] == [[2, 3], [0]]
    for (groups, layers), learner, task in zip(shown, (model, other), ([1, 0], [0]), strict=True):
        seen = observation[groups][..., :3]
        expected = learner.network(seen, torch.tensor(task)).layers
        for found, layer in zip(layers, expected, strict=True):
            torch.testing.assert_close(found, layer)
            assert not found.requires_grad


def test_anything_that_has_values_may_teach() -> None:
    class Constant:
        def action_values(self, observation: Tensor, task: Tensor) -> Tensor:
            return task.view(-1, 1, 1).expand(-1, observation.shape[1], 2).float()

    infos = [*_student(a=2), TaskInfo(name="b", observation_shape=(5,), num_actions=2)]
    teachers = Teachers(infos, {"a": Constant(), "b": Constant()})
    found = teachers.action_values(_observation(2), torch.tensor([1, 0]))
    assert found[:, 0].tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_a_policy_that_tasks_share_teaches_as_a_policy() -> None:
    infos = _student(a=2, b=2)
    prior = Prior(infos, partial(MLPTorso, hidden=[8]))
    teachers, observation = Teachers(infos, {"b": prior}), _observation(2)
    assert teachers.policies == ["b"]
    policies = teachers.says_policy(torch.tensor([1, 0, 1]))
    assert policies is not None
    assert policies.tolist() == [True, False, True]
    found = teachers.action_values(observation, torch.tensor([1, 0]))
    torch.testing.assert_close(found[:1], prior(observation[:1], torch.tensor([1])))
    with pytest.raises(ValueError, match=complaint("teachers")):
        teachers.require_values("a match of values")


def test_tasks_may_have_none_and_then_values_of_0() -> None:
    infos = _student(a=2, b=2)
    teacher = DQN(infos, NETWORK)
    teachers, observation = Teachers(infos, {"a": teacher}), _observation(2)
    assert teachers.knows(torch.tensor([1, 0, 1])).tolist() == [False, True, False]
    found = teachers.action_values(observation, torch.tensor([1, 0]))
    assert (found[0] == 0.0).all()
    expected = teacher.action_values(observation[1:], torch.tensor([0]))
    torch.testing.assert_close(found[1:], expected)


def test_teachers_are_frozen(tmp_path: Path) -> None:
    path, _ = _run(tmp_path, {"a": COUNT})
    (teacher,) = Teachers(_student(a=2), {"a": path})._teachers
    assert not any(p.requires_grad for p in teacher.network.parameters())  # type: ignore[union-attr]
    assert not teacher.network.training  # type: ignore[union-attr]


def test_teachers_without_a_task_are_refused() -> None:
    with pytest.raises(ValueError, match=complaint("teachers")):
        Teachers(_student(a=2, b=2), {"a": "x", "c": "z"})


def test_names_are_for_tasks_that_have_a_teacher() -> None:
    with pytest.raises(ValueError, match=complaint("teacher_tasks")) as error:
        Teachers(_student(a=2, b=2), {"a": DQN(_student(a=2), NETWORK)}, {"b": "x"})
    assert "['a']" in str(error.value)


@pytest.mark.parametrize("tasks", [{"a": COUNT}, {"a": COUNT, "b": COUNT}], ids=len)
def test_a_teacher_has_learned_from_observations_of_the_tasks_own_size(
    tasks: dict[str, TaskSpec], tmp_path: Path
) -> None:
    path, _ = _run(tmp_path, tasks)
    padded = TaskInfo(name="a", observation_shape=(5,), own_shape=(3,), num_actions=2)
    Teachers([padded], {"a": path})
    larger = TaskInfo(name="a", observation_shape=(5,), own_shape=(5,), num_actions=2)
    with pytest.raises(ValueError, match=complaint("teachers.a")) as error:
        Teachers([larger], {"a": path})
    assert "(5,)" in str(error.value)
    assert "(3,)" in str(error.value)


def test_teachers_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    path, _ = _run(tmp_path, {"a": COUNT, "b": COUNT})
    image = TaskInfo(name="a", observation_shape=(1, 4, 4), num_actions=2, observation_kind="image")
    for infos, number in ((_student(c=2), "know the task c"), (_student(a=3), "actions 3")):
        (name,) = (info.name for info in infos)
        with pytest.raises(ValueError, match=complaint(f"teachers.{name}")) as error:
            Teachers(infos, {name: path})
        assert number in str(error.value)
    with pytest.raises(ValueError, match=complaint("teachers.a")):
        Teachers([image], {"a": path})
    with pytest.raises(ValueError, match=complaint("teachers.a")):
        Teachers(_student(a=2), {"a": str(tmp_path / "nowhere")})


def test_a_teacher_may_be_built_of_classes_that_its_own_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {"a": {"env": VECTOR}}
    run, module = save_run_of_own_torso(tmp_path, tasks, monkeypatch, NAMES_OWN_TORSO)
    (teacher,) = Teachers(_student(a=2), {"a": str(run)})._teachers
    assert type(teacher.network.torso).__module__ == module.stem  # type: ignore[union-attr]


def test_a_class_that_only_a_teachers_checkpoint_names_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, module = save_run_of_own_torso(tmp_path, {"a": {"env": VECTOR}}, monkeypatch)
    with pytest.raises(ValueError, match=r"`teachers\.a` must be built of .*'own_torso\.Own'"):
        Teachers(_student(a=2), {"a": str(run)})
    assert not module.with_suffix(".imported").exists()


@pytest.mark.parametrize("missing", ["own_torso", "own_torso.Missing", "nowhere.Own", "..x.Own"])
def test_a_teacher_whose_class_is_no_longer_there_is_refused(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"class_path": missing}
    run, _ = save_run_of_own_torso(tmp_path, {"a": {"env": VECTOR}}, monkeypatch, named)
    with pytest.raises(ValueError, match=complaint("teachers.a")):
        Teachers(_student(a=2), {"a": str(run)})


def test_a_configuration_is_not_asked_where_a_checkpoint_names_no_class_of_a_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {"a": {"env": VECTOR}}
    _, module = save_run_of_own_torso(tmp_path, tasks, monkeypatch)
    run = save_run(tmp_path / "plain", tasks, model=NAMES_OWN_TORSO, network=NETWORK)
    Teachers(_student(a=2), {"a": str(run)})
    assert not module.with_suffix(".imported").exists()
