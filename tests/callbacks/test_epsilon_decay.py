from typing import Any

import pytest
import torch
from helpers.asserts import complaint
from helpers.counting_env import VECTOR
from helpers.runs import fit, quiet_trainer, small_data, small_model
from helpers.tape import Tape

from lit_mtdqn import DQN, TaskSpec
from lit_mtdqn.callbacks import EpsilonDecay
from lit_mtdqn.networks import LinearHead


@pytest.mark.parametrize(
    ("shape", "values"),
    [("linear", [0.9, 0.7, 0.5, 0.1, 0.1]), ("exponential", [0.9, 0.6656854, 0.5, 0.3, 0.1])],
)
def test_epsilon_falls_over_env_steps(shape: Any, values: list[float]) -> None:
    decay = EpsilonDecay(start=0.9, end=0.1, decay_env_steps=100, shape=shape)
    counts = [0, 50, 100, 200, 10_000]
    if shape == "linear":
        counts = [0, 25, 50, 100, 10_000]
    assert [decay.schedule(count) for count in counts] == pytest.approx(values)


def _always(action: int, model: DQN) -> None:
    """Make an action the greedy one everywhere."""
    assert isinstance(model.network.head, LinearHead)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        model.network.head.values.bias[..., action] = 1.0


def test_each_task_explores_by_its_own_env_steps() -> None:
    """One task has long been played, as after a resume; the other is new."""
    tapes = {name: Tape() for name in ("old", "new")}
    tasks = {
        name: TaskSpec(env=VECTOR, kwargs={"tape": tape, "num_actions": 50})
        for name, tape in tapes.items()
    }
    data = small_data(tasks, total_env_steps=100_040)
    data.clock.env_steps["old"] = 100_000
    model = small_model(data)
    _always(49, model)
    fit(data, model, EpsilonDecay(start=1.0, end=0.0, decay_env_steps=100_000))
    greedy = {
        name: [event.details["actions"] == [49, 49] for event in tape.named("step", num_envs=2)]
        for name, tape in tapes.items()
    }
    assert all(greedy["old"])
    assert not any(greedy["new"])


@pytest.mark.parametrize(("warmup", "random"), [(0, 1), (6, 3)])
def test_epsilon_changes_between_the_vector_steps_of_a_phase(warmup: int, random: int) -> None:
    """Two environments: epsilon is 1 at 0 env steps and 0 from the next vector step on."""
    tape = Tape()
    spec = TaskSpec(env=VECTOR, kwargs={"tape": tape, "pattern": (1_000,), "num_actions": 50})
    data = small_data({"count": spec}, total_env_steps=8, warmup_env_steps=warmup)
    model = small_model(data)
    _always(49, model)
    fit(data, model, EpsilonDecay(start=1.0, end=0.0, decay_env_steps=1))
    actions = [event.details["actions"] for event in tape.named("step", num_envs=2)]
    assert len(actions) == 4
    for taken in actions[:random]:
        assert taken != [49, 49]
    assert actions[random:] == [[49, 49]] * (4 - random)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_alone_changes_no_exploration(stage: str) -> None:
    data = small_data()
    data.exploration.epsilon = 0.3
    trainer = quiet_trainer(EpsilonDecay())
    getattr(trainer, stage)(small_model(data), data, verbose=False)
    assert data.exploration.epsilon == 0.3


def test_without_anything_that_explores_it_is_refused() -> None:
    trainer = quiet_trainer()
    trainer.datamodule = None  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"^`data` must have an `exploration` for EpsilonDecay"):
        EpsilonDecay().setup(trainer, small_model(small_data()), "fit")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"start": 1.1}, "EpsilonDecay.start"),
        ({"end": -0.1}, "EpsilonDecay.end"),
        ({"decay_env_steps": 0}, "EpsilonDecay.decay_env_steps"),
        ({"shape": "cubic"}, "EpsilonDecay.shape"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=complaint(name)):
        EpsilonDecay(**arguments)
