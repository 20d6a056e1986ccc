import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from helpers.asserts import complaint

from lit_mtdqn.types import TaskInfo, TaskSpec, as_task_infos, as_task_specs


def _info(name: str, num_actions: int = 2, **fields: Any) -> TaskInfo:
    return TaskInfo(**{"observation_shape": (4,), **fields}, name=name, num_actions=num_actions)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("env", ""),
        ("backend", "threads"),
        ("gamma", -0.1),
        ("gamma", 1.1),
        ("gamma", float("nan")),
        ("n_step", 0),
        ("weight", 0.0),
        ("time_limit", 0),
        ("reward_clip", (1.0, 1.0)),
        ("reward_clip", (1.0, -1.0)),
        ("score_range", (5.0, 5.0)),
        ("head", "two words"),
    ],
)
def test_a_spec_refuses_values_out_of_range_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=complaint(field)):
        TaskSpec(**{"env": "CartPole-v1", field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gamma", 0.0),
        ("gamma", 1.0),
        ("n_step", 1),
        ("time_limit", 1),
        ("reward_clip", (-1.0, 1.0)),
        ("score_range", (5.0, -5.0)),
        ("head", "shared"),
    ],
)
def test_a_spec_accepts_values_at_the_edge_of_the_range(field: str, value: object) -> None:
    spec = TaskSpec(**{"env": "CartPole-v1", field: value})  # type: ignore[arg-type]
    assert getattr(spec, field) == value


def test_a_spec_refuses_cumulants_of_which_clipped_rewards_are_no_sum() -> None:
    with pytest.raises(ValueError, match=complaint("reward_clip")):
        TaskSpec(env="CartPole-v1", cumulants_key="phi", reward_clip=(-1.0, 1.0))


def test_specs_do_not_share_mutable_defaults() -> None:
    one, other = TaskSpec(env="A-v0"), TaskSpec(env="A-v0")
    assert one.kwargs is not other.kwargs
    assert one.wrappers is not other.wrappers


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        TaskSpec(env="A-v0").gamma = 0.5  # type: ignore[misc]


def test_a_task_has_a_head_of_its_own_unless_it_names_one() -> None:
    assert _info("left").head == "left"
    assert _info("left", head="shared").head == "shared"


def test_an_info_survives_a_round_trip_through_json() -> None:
    info = _info("left", score_range=(0.0, 500.0), head="shared", weight=2.0, learns=False)
    assert TaskInfo(**json.loads(json.dumps(info.as_dict()))) == info


def test_an_info_refuses_values_out_of_range_by_name() -> None:
    with pytest.raises(ValueError, match=complaint("task name")):
        _info("not an identifier")
    with pytest.raises(ValueError, match=complaint("num_actions")):
        _info("left", num_actions=0)


def test_infos_and_mappings_mix_and_keep_their_order() -> None:
    right = _info("right", num_actions=3)
    infos = as_task_infos([right, _info("left").as_dict()])
    assert infos == [right, _info("left")]


@pytest.mark.parametrize(
    "tasks",
    [
        [],
        [_info("left"), _info("left")],
        [_info("left"), _info("right", observation_shape=(5,))],
    ],
    ids=["no task", "one name twice", "unlike shapes"],
)
def test_tasks_that_do_not_fit_together_are_refused(tasks: list[TaskInfo]) -> None:
    with pytest.raises(ValueError, match=complaint("tasks")):
        as_task_infos(tasks)


def test_specs_may_be_plain_mappings() -> None:
    spec = TaskSpec(env="A-v0")
    specs = as_task_specs({"a": spec, "b": {"env": "B-v0", "gamma": 0.5}})
    assert specs["a"] is spec
    assert specs["b"] == TaskSpec(env="B-v0", gamma=0.5)
    assert list(specs) == ["a", "b"]


@pytest.mark.parametrize(
    ("task", "name", "got"),
    [
        ({"env": "A-v0", "gama": 0.5}, "tasks.maze", "'gama'"),
        ({"gamma": 0.5}, "tasks.maze", "{'gamma': 0.5}"),
        ({"env": "A-v0", "gamma": 2.0}, "gamma", "2.0"),
    ],
)
def test_a_mapping_that_is_no_spec_is_refused_in_one_sentence(
    task: dict[str, Any], name: str, got: str
) -> None:
    with pytest.raises(ValueError, match=complaint(name)) as caught:
        as_task_specs({"fine": {"env": "A-v0"}, "maze": task})
    assert got in str(caught.value)


def test_a_task_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(TypeError, match=complaint("tasks.maze")):
        as_task_specs({"maze": "CartPole-v1"})  # type: ignore[dict-item]
