from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from helpers.asserts import complaint
from helpers.counting_env import SINGLE, VECTOR, CountingEnv
from helpers.showing_env import SHOWING
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mtdqn.envs import Layout, TaskEnv, probe_tasks
from lit_mtdqn.types import TaskInfo, TaskSpec


def _showing(space: gymnasium.Space[Any], **fields: Any) -> TaskSpec:
    actions = fields.pop("actions", spaces.Discrete(2))
    kwargs = {"observation_space": space, "action_space": actions}
    return TaskSpec(env=SHOWING, kwargs=kwargs, **fields)


def _vector(size: int, **fields: Any) -> TaskSpec:
    return _showing(spaces.Box(-1.0, 1.0, (size,), np.float32), **fields)


def _image(*shape: int, high: int = 255, **fields: Any) -> TaskSpec:
    return _showing(spaces.Box(0, high, shape, np.uint8), **fields)


def test_vectors_share_the_longest_size_and_tasks_the_largest_number_of_actions() -> None:
    tasks = {
        "small": _vector(2, actions=spaces.Discrete(5)),
        "large": _showing(spaces.Discrete(7), actions=spaces.Discrete(3, start=-4)),
    }
    layout, infos = probe_tasks(tasks)
    assert layout == Layout((7,), 5, np.dtype(np.float32))
    assert [info.observation_shape for info in infos] == [(7,), (7,)]
    assert [info.num_actions for info in infos] == [5, 3]


def test_images_share_the_largest_number_of_channels_and_the_largest_value() -> None:
    layout, infos = probe_tasks({"bits": _image(8, 9, 6, high=1), "pictures": _image(3, 8, 9)})
    assert layout == Layout((6, 8, 9), 2, np.dtype(np.uint8))
    assert [info.observation_high for info in infos] == [255.0, 255.0]
    assert {info.observation_kind for info in infos} == {"image"}


def test_an_info_says_what_the_learner_needs() -> None:
    spec = _vector(4, weight=2.0, score_range=(0.0, 9.0), head="shared", learns=False)
    _, infos = probe_tasks({"left": spec, "right": _vector(3)})
    assert infos == [
        TaskInfo(
            name="left",
            observation_shape=(4,),
            own_shape=(4,),
            num_actions=2,
            head="shared",
            learns=False,
            weight=2.0,
            score_range=(0.0, 9.0),
        ),
        TaskInfo(name="right", observation_shape=(4,), own_shape=(3,), num_actions=2),
    ]


@pytest.mark.parametrize(("spec", "size"), [(_vector(5), 20), (_image(4, 4, 2), 32)])
def test_a_layout_knows_the_size_of_an_observation(spec: TaskSpec, size: int) -> None:
    layout, _ = probe_tasks({"a": spec})
    assert layout.observation_bytes == size
    assert layout.empty_observation(3).nbytes == 3 * size


def test_probing_takes_the_batched_form_and_closes_what_it_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(CountingEnv, "close", lambda self: closed.append("single"))
    monkeypatch.setattr(
        "helpers.counting_env.CountingVectorEnv.close", lambda self: closed.append("vector")
    )
    probe_tasks({"one": TaskSpec(env=SINGLE), "many": TaskSpec(env=VECTOR)})
    assert closed == ["single", "vector"]


def test_an_environment_that_cannot_be_used_is_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr("helpers.showing_env.ShowingEnv.close", lambda self: closed.append("it"))
    with pytest.raises(ValueError, match="observations"):
        probe_tasks({"a": _showing(spaces.Text(3))})
    assert closed == ["it"]


def test_continuous_actions_are_refused_and_the_wrapper_that_helps_is_named() -> None:
    with pytest.raises(
        ValueError,
        match=r"^`tasks\.swing\.env` must have a discrete action space\. Got Box\(.*"
        r"wrappers: \[\{class_path: gymnasium\.wrappers\.DiscretizeAction",
    ):
        probe_tasks({"swing": _vector(3, actions=spaces.Box(-1.0, 1.0, (1,), np.float32))})


def test_the_wrapper_that_the_complaint_names_helps() -> None:
    wrapper = {"class_path": "gymnasium.wrappers.DiscretizeAction", "init_args": {"bins": 5}}
    actions = spaces.Box(-1.0, 1.0, (1,), np.float32)
    _, infos = probe_tasks({"swing": _vector(3, actions=actions, wrappers=[wrapper])})
    assert infos[0].num_actions == 5


def test_other_actions_are_refused_and_a_base_class_is_named() -> None:
    with pytest.raises(ValueError, match=r"must have a discrete .+ Got Multi.+ActionWrapper"):
        probe_tasks({"a": _vector(3, actions=spaces.MultiDiscrete([2, 2]))})


def test_vectors_and_images_together_are_refused() -> None:
    kinds = r"Got \{'a': 'vector', 'b': 'image'\}"
    with pytest.raises(ValueError, match=rf"^`tasks` must have observations of one kind.+ {kinds}"):
        probe_tasks({"a": _vector(4), "b": _image(8, 8, 3)})


def test_images_of_unlike_sizes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^`tasks` must have images of one height and width\. Got .+\(3, 8, 8\)"
    ):
        probe_tasks({"a": _image(8, 8, 3), "b": _image(8, 9, 3)})


@pytest.mark.parametrize("name", ["two words", "a.b", "7th", ""])
def test_a_name_that_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=complaint("tasks")):
        probe_tasks({name: _vector(4)})


def test_no_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`tasks` must hold at least one task\. Got \{\}\.$"):
        probe_tasks({})


def test_a_task_has_the_first_of_the_padded_actions() -> None:
    layout = Layout((3,), 4, np.dtype(np.float32))
    assert layout.action_mask(3).tolist() == [True, True, True, False]
    assert layout.action_mask(4).all()


@given(
    tasks=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4),
    num_envs=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_padded_observations_are_those_of_a_loop_over_all_places(
    tasks: list[tuple[int, int]], num_envs: int, seed: int
) -> None:
    draws = np.random.default_rng(seed)
    shown = [draws.uniform(-1.0, 1.0, size).astype(np.float32) for size, _ in tasks]
    specs = {
        f"task_{place}": TaskSpec(
            env=SHOWING,
            kwargs={
                "observation_space": spaces.Box(-1.0, 1.0, (size,), np.float32),
                "action_space": spaces.Discrete(actions),
                "observations": [shown[place]],
            },
        )
        for place, (size, actions) in enumerate(tasks)
    }
    layout, infos = probe_tasks(specs)
    longest, most = (max(column) for column in zip(*tasks, strict=True))
    assert layout == Layout((longest,), most, np.dtype(np.float32))
    for (name, spec), info, own, (size, actions) in zip(
        specs.items(), infos, shown, tasks, strict=True
    ):
        env = TaskEnv(name, spec, num_envs, layout)
        expected = [float(own[at]) if at < size else 0.0 for at in range(longest)]
        assert env.reset(0)[0].tolist() == [expected] * num_envs
        assert layout.action_mask(info.num_actions).tolist() == [a < actions for a in range(most)]
        env.close()
