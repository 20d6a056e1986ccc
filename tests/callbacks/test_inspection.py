"""When callbacks look into a learner, and that looking leaves no trace."""

from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from helpers.asserts import assert_same_state, complaint
from helpers.counting_env import VECTOR
from helpers.heads import ALL
from helpers.runs import COUNTING, fit, small_data, small_model
from helpers.tape import Tape
from torch import Tensor, nn

from lit_mtdqn import MultiTaskDQN, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import GradientAgreement, Inspection, NetworkHealth, TaskAffinity
from lit_mtdqn.callbacks.inspection import tasks_in
from lit_mtdqn.networks import Experts, MLPTorso, QNetwork
from lit_mtdqn.scaling import PopArt
from lit_mtdqn.types import Transition

EVERY = [GradientAgreement, TaskAffinity, NetworkHealth]
OF_TASKS = [GradientAgreement, TaskAffinity]


class Witness(Inspection):
    """Records when it looks, at what, and how often the learner has been updated by then."""

    def __init__(self, tape: Tape, data: RolloutDataModule, every_n_updates: int) -> None:
        super().__init__(every_n_updates)
        self.tape, self.data = tape, data

    def before_updates(self, learner: Any, batch: Transition) -> None:
        self._record("before", batch)

    def metrics(self, learner: Any, batch: Transition) -> dict[str, Tensor]:
        self._record("after", batch)
        return {"found": torch.tensor(7.0)}

    def _record(self, name: str, batch: Transition) -> None:
        updates = self.data.clock.updates
        self.tape.record(name, updates=updates, seen=batch.observation.clone())


@pytest.mark.parametrize(
    ("every_n_updates", "log_every", "looks"),
    # A phase makes 2 updates; a look after update 2, then when so many more are made and logged.
    [(1, 1, [2, 4, 6, 8, 10]), (5, 1, [2, 8]), (1, 2, [4, 8]), (1000, 2, [4]), (1, 1000, [])],
)
def test_looks_come_with_rows_of_metrics_and_no_more_often_than_asked(
    every_n_updates: int, log_every: int, looks: list[int]
) -> None:
    data = small_data(total_env_steps=None, total_updates=10)
    tape = Tape()
    witness = Witness(tape, data, every_n_updates)
    trainer = fit(data, small_model(data), witness, log_every_n_steps=log_every)
    found = [(event.name, event.details["updates"]) for event in tape.events]
    expected = [[("before", look - 2), ("after", look)] for look in looks]
    assert found == sum(expected, [])  # noqa: RUF017  a handful of pairs
    assert ("found" in trainer.callback_metrics) == bool(looks)


def test_another_run_is_looked_into_from_its_start() -> None:
    tape = Tape()
    witness = Witness(tape, small_data(), every_n_updates=1000)
    for _ in range(2):
        witness.data = small_data(total_env_steps=None, total_updates=10)
        fit(witness.data, small_model(witness.data), witness, log_every_n_steps=1)
    assert [event.details["updates"] for event in tape.named("after")] == [2, 2]


def test_both_looks_of_a_phase_are_at_its_last_minibatch() -> None:
    data = small_data(total_env_steps=None, total_updates=6)
    tape = Tape()
    last: list[Tensor] = []

    class Remember(NetworkHealth):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, _: int) -> None:
            last.append(batch.transitions.observation[-1].clone())

    fit(data, small_model(data), Remember(), Witness(tape, data, 1), log_every_n_steps=1)
    for kind in ("before", "after"):
        seen = [event.details["seen"] for event in tape.named(kind)]
        assert len(seen) == len(last) == 3
        assert all(torch.equal(*pair) for pair in zip(seen, last, strict=True))


def _trained(
    callbacks: list[Any], network: Any, scale: Any = None
) -> tuple[MultiTaskDQN, Tensor, set[str]]:
    data = small_data({"a": COUNTING, "b": TaskSpec(env=VECTOR, weight=2.0)})
    torch.manual_seed(0)
    model = MultiTaskDQN(data.task_infos, network, scale=scale)
    trainer = fit(data, model, *callbacks, log_every_n_steps=1)
    return model, torch.get_rng_state(), set(trainer.callback_metrics)


NETWORKS: dict[str, Any] = {
    "linear": ALL["linear"],
    "noisy": ALL["noisy hidden dueling c51"],
    "implicit": ALL["noisy implicit"],
}


@pytest.mark.parametrize(
    ("name", "scale"), [*((name, None) for name in NETWORKS), ("implicit", PopArt)]
)
def test_looking_changes_nothing_of_a_run(name: str, scale: Any) -> None:
    torso = partial(MLPTorso, hidden=[8, 6])
    network = partial(QNetwork, torso=torso, head=NETWORKS[name])
    plain, state, names = _trained([], network, scale)
    watched, watched_state, more = _trained([kind(1) for kind in EVERY], network, scale)
    assert_same_state(watched.network, plain.network)
    assert torch.equal(watched_state, state)
    kinds = {"gradients", "affinity", "health"}
    assert {found.partition("/")[0] for found in more - names} == kinds


def test_random_routers_are_looked_at_without_a_draw() -> None:
    sharing = partial(Experts, router="gumbel", num_experts=2)
    network = partial(QNetwork, torso=partial(MLPTorso, hidden=[8]), sharing=sharing)
    plain, state, _ = _trained([], network)
    watched, watched_state, _ = _trained([kind(1) for kind in EVERY], network)
    assert_same_state(watched.network, plain.network)
    assert torch.equal(watched_state, state)


def test_nothing_is_computed_for_rows_that_are_not_due(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("nobody asked")

    for kind in EVERY:
        monkeypatch.setattr(kind, "metrics", fail)
        monkeypatch.setattr(kind, "before_updates", fail)
    data = small_data({"a": COUNTING, "b": COUNTING})
    model = MultiTaskDQN(data.task_infos, partial(QNetwork, torso=partial(MLPTorso, hidden=[8])))
    fit(data, model, *(kind(1) for kind in EVERY), log_every_n_steps=1000)


def test_tasks_of_a_minibatch_are_named_in_rising_order() -> None:
    learner: Any = Mock(tasks=[Mock(), Mock(), Mock()])
    for info, name in zip(learner.tasks, "abc", strict=True):
        info.name = name
    batch: Any = Mock(task=torch.tensor([2, 0, 2]))
    assert list(tasks_in(batch, learner).items()) == [(0, "a"), (2, "c")]


@pytest.mark.parametrize("kind", OF_TASKS)
def test_a_learner_of_single_tasks_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=complaint("model")):
        kind().setup(Mock(), small_model(small_data()), "fit")


class Apart(QNetwork):
    """Shares nothing."""

    def shared_parameters(self) -> list[nn.Parameter]:
        return []


@pytest.mark.parametrize("kind", OF_TASKS)
def test_tasks_that_share_nothing_are_not_compared(kind: Any) -> None:
    model = MultiTaskDQN(small_data({"a": COUNTING, "b": COUNTING}).task_infos, Apart)
    with pytest.raises(ValueError, match=complaint("model.network")):
        kind().setup(Mock(), model, "fit")
    NetworkHealth().setup(Mock(), model, "fit")


@pytest.mark.parametrize("kind", EVERY)
def test_looking_less_than_never_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=complaint("every_n_updates")):
        kind(0)
