"""A policy acts in environments as they come."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers.asserts import complaint
from helpers.counting_env import SINGLE
from helpers.runs import NETWORK
from helpers.saved_runs import save_run

from lit_mtdqn import DQN
from lit_mtdqn.deployment import SavedRun, read_run

TASKS = {"few": {"env": SINGLE}, "many": {"env": f"{__name__}:Shifted"}}


class Shifted(gymnasium.Env[Any, Any]):
    """Shows two parts, the second one discrete, and counts its four actions from 3."""

    observation_space = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Discrete(3)})
    action_space = spaces.Discrete(4, start=3)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    """Return a run of both tasks that has learned nothing."""
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("saved") / "run"
    return read_run(str(save_run(folder, TASKS, DQN, network=NETWORK)))


def _values(run: SavedRun, *numbers: float) -> torch.Tensor:
    """Return the four values of the second task for an observation of it, as the learner has it."""
    found = run.policy.action_values(torch.tensor([[[*numbers]]]), torch.tensor([1]))
    return found[0, 0, :4]


def test_raw_observations_are_converted_and_actions_are_those_of_the_environment(
    run: SavedRun,
) -> None:
    act = run.actor("many")
    for a, b in (((0.5, -1.0), 2), ((-1.0, 1.0), 0)):
        one_hot = [float(b == place) for place in range(3)]
        observation = {"a": np.array(a, np.float32), "b": np.int64(b)}
        assert act(observation) == 3 + int(_values(run, *a, *one_hot).argmax())


def test_observations_of_a_smaller_task_are_padded(run: SavedRun) -> None:
    seen = torch.zeros(1, 1, 5)
    seen[..., :3] = 0.5
    best = run.policy.action_values(seen, torch.tensor([0]))[0, 0, :2].argmax()
    assert run.actor("few")(np.full(3, 0.5, np.float32)) == int(best)


def test_what_a_state_forbids_is_not_taken(run: SavedRun) -> None:
    act, observation = run.actor("many"), {"a": np.zeros(2, np.float32), "b": np.int64(1)}
    order = _values(run, 0.0, 0.0, 0.0, 1.0, 0.0).argsort(descending=True).tolist()
    allowed = np.ones(4, bool)
    for best in order:
        assert act(observation, allowed) == 3 + best
        allowed[best] = False


def test_a_task_is_named_where_there_are_several(run: SavedRun) -> None:
    for name in (None, "other"):
        with pytest.raises(ValueError, match=complaint("task")):
            run.actor(name)
