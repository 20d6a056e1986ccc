from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, assert_table, complaint
from helpers.batches import random_batch
from helpers.heads import ALL
from helpers.runs import fit, small_data, small_model
from torch import Tensor

from lit_mtdqn import DQN, TaskInfo
from lit_mtdqn.callbacks import NetworkHealth
from lit_mtdqn.functional.representation import dormant_share, effective_rank
from lit_mtdqn.networks import LinearHead, MLPTorso, QNetwork
from lit_mtdqn.types import Transition

INFOS = [
    TaskInfo(name="wide", observation_shape=(3,), num_actions=4),
    TaskInfo(name="narrow", observation_shape=(3,), num_actions=2),
    TaskInfo(name="absent", observation_shape=(3,), num_actions=3),
]
LAYERS = ("", "/narrow", "/wide")


def _learner(head: Any = LinearHead, hidden: Any = (7, 5)) -> DQN:
    torch.manual_seed(0)
    torso = partial(MLPTorso, hidden=hidden)
    return DQN(INFOS, partial(QNetwork, torso=torso, head=head))


def _batch(**extra: Tensor) -> Transition:
    return random_batch(INFOS, rows=4, groups=[1, 0, 1])._replace(extra=extra)


def test_layers_and_features_are_judged_over_all_rows_and_by_task() -> None:
    learner, batch = _learner(), _batch()
    health = NetworkHealth(dormant_threshold=0.6, rank_delta=0.1)
    health.before_updates(learner, batch)
    found = health.metrics(learner, batch)
    assert found.keys() == {
        f"health/{name}{task}"
        for name in ("dormant/1", "dormant/2", "effective_rank", "policy_churn")
        for task in LAYERS
    }
    layers = learner.network(batch.observation, batch.task).layers
    for task, groups in {"": [0, 1, 2], "/narrow": [0, 2], "/wide": [1]}.items():
        for place, layer in enumerate(layers, 1):
            expected = dormant_share(layer[groups].reshape(-1, layer.shape[-1]), 0.6)
            assert torch.equal(found[f"health/dormant/{place}{task}"], expected)
        expected = effective_rank(layers[-1][groups].reshape(-1, 5), 0.1)
        assert torch.equal(found[f"health/effective_rank{task}"], expected)
    assert not any(value.requires_grad or value.dim() for value in found.values())


def _with_biases(learner: DQN, *rows: list[float]) -> None:
    """Let action values be the same in all states, by task."""
    head = learner.network.head
    assert isinstance(head, LinearHead)
    order = [head.values.heads.index(info.name) for info in INFOS]
    with torch.no_grad():
        head.values.weight.zero_()
        for place, row in zip(order, rows, strict=False):
            head.values.bias[place, 0] = torch.tensor(row)


def test_churn_is_of_the_policy_and_not_of_actions_that_tasks_lack() -> None:
    learner, batch = _learner(), _batch()
    health = NetworkHealth()
    _with_biases(learner, [1.0, 2.0, 3.0, 0.0], [1.0, 0.0, 9.0, 5.0])
    health.before_updates(learner, batch)
    # The best of four becomes the last; the best of two stays the first, whatever lies beyond.
    _with_biases(learner, [1.0, 2.0, 3.0, 4.0], [1.0, 0.5, 5.0, 9.0])
    found = health.metrics(learner, batch)
    assert_table(found["health/policy_churn/wide"], 1.0)
    assert_table(found["health/policy_churn/narrow"], 0.0)
    assert_table(found["health/policy_churn"], 1.0 / 3.0)


def test_churn_knows_what_states_forbid() -> None:
    mask = torch.ones(3, 4, 4, dtype=torch.bool)
    mask[:, :, 2:] = False
    mask[1, :2, 2] = True
    learner, batch = _learner(), _batch(action_mask=mask)
    health = NetworkHealth()
    _with_biases(learner, [1.0, 2.0, 3.0, 0.0], [1.0, 0.0, 0.0, 0.0])
    health.before_updates(learner, batch)
    # Of four rows only two allow the action that was best and is no more.
    _with_biases(learner, [1.0, 2.0, 0.0, 9.0], [1.0, 0.0, 0.0, 0.0])
    assert_table(health.metrics(learner, batch)["health/policy_churn/wide"], 0.5)


def test_a_phase_reports_what_its_own_updates_changed() -> None:
    class Twice(NetworkHealth):
        """Compares with a copy of the network from before the phase."""

        churn: list[tuple[Tensor, Tensor]] = []  # noqa: RUF012

        def before_updates(self, learner: Any, batch: Transition) -> None:
            super().before_updates(learner, batch)
            self.values = learner.action_values(batch.observation, batch.task)

        def metrics(self, learner: Any, batch: Transition) -> dict[str, Tensor]:
            found = super().metrics(learner, batch)
            values = learner.action_values(batch.observation, batch.task)
            expected = (values.argmax(-1) != self.values.argmax(-1)).float().mean()
            self.churn.append((found["health/policy_churn"], expected))
            return found

    data = small_data(replay_ratio=2.0)
    watching = Twice(1)
    fit(data, small_model(data), watching, log_every_n_steps=1)
    assert all(float(found) == float(expected) for found, expected in watching.churn)
    assert any(float(found) > 0.0 for found, _ in watching.churn)


@pytest.mark.parametrize("name", ["noisy hidden dueling c51", "noisy implicit"])
def test_noise_is_no_churn(name: str) -> None:
    learner = _learner(ALL[name])
    learner.resample_noise()
    learner.network.eval()
    health, batch = NetworkHealth(), _batch()
    health.before_updates(learner, batch)
    # As between two phases: noise is drawn for updates and dropped after them.
    learner.network.train()
    learner.resample_noise()
    learner.network.eval()
    before, generator = learner.state_dict(), torch.get_rng_state()
    assert_table(health.metrics(learner, batch)["health/policy_churn"], 0.0)
    assert_equal_tensors(learner.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(module.training for module in learner.network.modules())


@pytest.mark.parametrize(
    ("name", "value"),
    [("dormant_threshold", -0.1), ("rank_delta", 0.0), ("rank_delta", 1.0)],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    options: Any = {name: value}
    with pytest.raises(ValueError, match=complaint(name)):
        NetworkHealth(**options)
