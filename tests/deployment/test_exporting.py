"""An exported policy acts as the network does."""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.counting_env import SINGLE
from helpers.heads import ALL
from helpers.runs import small_data
from helpers.sharing import SHARINGS, THREE, network_of
from torch import Tensor

from lit_mtdqn import DQN, TaskSpec
from lit_mtdqn.deployment import KEY, GreedyPolicy, export_policy
from lit_mtdqn.deployment.exporting import as_program, load
from lit_mtdqn.envs import Layout
from lit_mtdqn.networks import MLPTorso, QNetwork
from lit_mtdqn.scaling import PopArt

LAYOUT = Layout((4,), 3, np.dtype(np.float32))
SHAPES = [(1, 1), (1, 6), (4, 2)]
WIDE = partial(MLPTorso, hidden=(24, 16))
# Unlike actions, of which one set starts at 1 and another forbids some as it goes.
TASKS = {
    "few": TaskSpec(env=SINGLE),
    "many": TaskSpec(env=SINGLE, kwargs={"num_actions": 3, "first_action": 1}),
    "masked": TaskSpec(env=SINGLE, kwargs={"num_actions": 3}, action_mask_key="mask"),
    "cartpole": TaskSpec(env="CartPole-v1"),
}
GUIDE = Path("docs/deployment.md")


def asked(shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    task = torch.arange(shape[0]) % 3
    allowed = torch.rand(*shape, 3) < 0.6
    allowed[..., 0] |= ~allowed.any(-1)
    return torch.randn(*shape, 4), task, allowed


def assert_same(policy: GreedyPolicy, acts: Any) -> None:
    for shape in SHAPES:
        inputs = asked(shape)
        action, values = policy(*inputs)
        found = acts(*(tensor.numpy() for tensor in inputs))
        torch.testing.assert_close(torch.from_numpy(found[1]), values.detach())
        assert np.array_equal(found[0], action.numpy())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[DQN, Any, Path]:
    """Return a learner of three tasks with PopArt, their data and the folder of its files."""
    data = small_data(TASKS)
    network = partial(QNetwork, torso=WIDE, head=ALL["noisy dueling"])
    learner = DQN(data.task_infos, network, scale=PopArt)
    assert learner.scale is not None
    learner.scale.set_extra_state(
        {name: torch.tensor([0.5, 3.0 + i, 7.0]) for i, name in enumerate(TASKS)}
    )
    folder = tmp_path_factory.mktemp("exported")
    written = export_policy(learner, data, folder, observations=50)
    assert [(one.path.name, [p.task for p in one.parity]) for one in written] == [
        ("policy.pt2", list(TASKS)),
        ("policy.onnx", list(TASKS)),
    ]
    assert all(parity.observations == 50 and parity.holds for o in written for parity in o.parity)
    return learner, data, folder


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_a_file_acts_and_values_in_the_unit_of_rewards(
    exported: tuple[DQN, Any, Path], kind: str
) -> None:
    learner, _, folder = exported
    acts = load(kind, folder / f"policy.{kind}")
    observation, task = torch.randn(3, 6, 4), torch.arange(3)
    allowed = torch.ones(3, 6, 3, dtype=torch.bool)
    allowed[2, :, 0] = False
    action, values = acts(observation.numpy(), task.numpy(), allowed.numpy())
    raw = learner.action_values(observation, task)
    own = allowed.clone()
    own[0, :, 2] = False  # The task has two actions.
    torch.testing.assert_close(torch.from_numpy(values[own]), raw[own])
    assert np.isneginf(values[~own]).all()
    assert np.array_equal(action, np.where(own, raw, -np.inf).argmax(-1))


def test_files_describe_tasks_and_what_becomes_of_observations(
    exported: tuple[DQN, Any, Path],
) -> None:
    import onnxruntime

    folder = exported[2]
    extra = {f"{KEY}.json": ""}
    with (folder / "policy.pt2").open("rb") as file:
        torch.export.load(file, extra_files=extra)
    session = onnxruntime.InferenceSession(str(folder / "policy.onnx"))
    text = session.get_modelmeta().custom_metadata_map[KEY]
    assert text == extra[f"{KEY}.json"]
    told = json.loads(text)
    assert told["observation"] == {"shape": [4], "dtype": "float32"}
    names = ("name", "num_actions", "first_action", "head")
    assert [tuple(task[name] for name in names) for task in told["tasks"]] == [
        ("few", 2, 0, "few"),
        ("many", 3, 1, "many"),
        ("masked", 3, 0, "masked"),
        ("cartpole", 2, 0, "cartpole"),
    ]
    assert told["tasks"][0]["parts"] == [{"at": [], "as": "flat", "size": 3}]
    assert told["values"] == "discounted return"


def test_the_example_of_the_guide_serves_without_pytorch(
    exported: tuple[DQN, Any, Path],
) -> None:
    (code,) = [
        c
        for c in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        if "InferenceSession" in c
    ]
    without = "import sys; sys.modules['torch'] = sys.modules['lit_mtdqn'] = None\n"
    file = exported[2] / "policy.onnx"
    code = re.sub(r"runs/\S+\.onnx", str(file), code)
    done = subprocess.run(
        [sys.executable, "-c", without + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"return [\d.]+\n", done.stdout)


def test_a_file_that_acts_otherwise_is_not_kept(
    exported: tuple[DQN, Any, Path], tmp_path: Path
) -> None:
    learner, data, _ = exported
    other = SimpleNamespace(
        network=learner.network,
        scale=learner.scale,
        predicts_values=True,
        action_values=lambda observation, task: -learner.action_values(observation, task),
    )
    with pytest.raises(ValueError, match=r"^`policy\.pt2` must act as the network does"):
        export_policy(other, data, tmp_path, formats=["pt2"], observations=20)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named_before_anything_is_played(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnxruntime: run `pip install 'lit-mtdqn\[export\]'`"):
        export_policy(None, None, tmp_path)


class Doubtful(MLPTorso):
    """Compares numbers of groups and of rows, which are alike where both are 1."""

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        different = observation.shape[1] != observation.shape[0]
        return super().forward(observation if different else 2.0 * observation)


def test_a_network_that_could_not_serve_one_observation_is_refused() -> None:
    network = QNetwork(THREE, partial(Doubtful, hidden=(3,)))
    with pytest.raises(ValueError, match=r"^`network` must work for any number of groups and rows"):
        as_program(GreedyPolicy(network), LAYOUT)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARINGS)
def test_every_way_of_sharing_can_be_exported(name: str, tmp_path: Path) -> None:
    _assert_exports(network_of(name, torso=WIDE), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_head_can_be_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    _assert_exports(QNetwork(THREE, WIDE, ALL[name]).eval(), tmp_path)


def _assert_exports(network: QNetwork, folder: Path) -> None:
    from lit_mtdqn.deployment.exporting import _quiet, _write

    policy = GreedyPolicy(network)
    with _quiet():
        program = as_program(policy, LAYOUT)
        for kind in ("pt2", "onnx"):
            _write(kind, program, folder / f"policy.{kind}", "{}")
            assert_same(policy, load(kind, folder / f"policy.{kind}"))
