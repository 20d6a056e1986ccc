"""A task that acts and does not learn, whose rewards reach nothing but the log."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors
from helpers.counting_env import SINGLE, VECTOR
from helpers.runs import fit, small_data

from lit_mtdqn import MultiTaskDQN, RolloutDataModule, TaskSpec
from lit_mtdqn.balancing import GradNorm
from lit_mtdqn.data import SoftmaxTasks
from lit_mtdqn.networks import MLPTorso, QNetwork
from lit_mtdqn.objectives import Align
from lit_mtdqn.replay import Prioritisation
from lit_mtdqn.rollout import Boltzmann
from lit_mtdqn.scaling import PopArt, ReturnNormaliser, ReturnScaling

NETWORK = partial(QNetwork, torso=partial(MLPTorso, hidden=[8]))
NEAR = TaskSpec(env=VECTOR, score_range=(-10.0, 10.0))


def _far(offset: float, head: str | None) -> TaskSpec:
    """Return the target, whose rewards are as far off as one likes."""
    return TaskSpec(
        env=SINGLE,
        kwargs={"offset": offset},
        head=head,
        learns=False,
        score_range=(-10.0, 10.0),
    )


def _run(
    offset: float, kind: Any, model: dict[str, Any], data: dict[str, Any]
) -> tuple[dict[str, Any], float, RolloutDataModule]:
    """Return what is left of a run: the learner's state, the scores and the clock."""
    torch.manual_seed(0)
    tasks = {"far": _far(offset, None if kind == "dam" else "near"), "near": NEAR, "other": NEAR}
    rollouts = small_data(tasks, **data)
    objective = partial(Align, kind=kind, weight=1.0)
    learner = MultiTaskDQN(rollouts.task_infos, NETWORK, objectives=[objective], **model)
    trainer = fit(rollouts, learner, log_every_n_steps=1)
    assert rollouts.clock.updates > 0
    assert float(trainer.callback_metrics[f"train/{kind}/far"]) != 0.0
    returns = float(trainer.callback_metrics["rollout/episode_return/far"])
    left = {"scores": rollouts.scores.state_dict(), "steps": rollouts.clock.env_steps}
    return {**learner.state_dict(), **left}, returns, rollouts


def _prioritised() -> dict[str, Any]:
    return {"prioritisation": Prioritisation()}


def _drawn() -> dict[str, Any]:
    return {"boltzmann": Boltzmann(temperature=1.0)}


def _steered() -> dict[str, Any]:
    return {"sampler": SoftmaxTasks(score="gap", steers="both")}


@pytest.mark.parametrize(
    ("kind", "model", "data"),
    [
        ("mmd", {"scale": PopArt}, _prioritised),
        ("dam", {"scale": PopArt}, _steered),
        ("coral", {"scale": ReturnNormaliser}, _drawn),
        ("dann", {"scale": ReturnScaling}, _steered),
        ("mmd", {"scale": None, "balancer": GradNorm}, _prioritised),
    ],
    ids=["pop_art", "own_head", "return_normaliser", "return_scaling", "balanced"],
)
def test_other_rewards_of_the_target_leave_every_bit_of_a_run_as_it_was(
    kind: str, model: dict[str, Any], data: Callable[[], dict[str, Any]]
) -> None:
    (first, its_return, _), (second, another, _) = (
        _run(offset, kind, model, data()) for offset in (0.0, 1000.0)
    )
    # The rewards were there to be seen.
    assert another > its_return + 1000.0
    assert_equal_tensors(second, first)


def test_its_observations_are_its_own_and_its_rewards_are_in_no_batch() -> None:
    *_, data = _run(1000.0, "mmd", {}, {})
    assert data.source is not None
    phase = data.source.next_phase()
    names = list(data.tasks)
    learned = {names[number] for number in phase.transitions.task.flatten().tolist()}
    assert learned == {"near", "other"}
    assert float(phase.transitions.reward.max()) < 500.0
    seen = phase.transitions.observed["far"]
    assert seen.shape == (data.updates_per_phase, data.batch_size, 3)
    (slot,) = (slot for slot in data.slots if slot.task == "far")
    kept = {tuple(row) for row in slot.replay.sample(2_000)["observation"].tolist()}
    assert {tuple(row) for row in seen.flatten(0, 1).tolist()} <= kept
    assert set(phase.returns) <= {"near", "other"}


def test_a_run_waits_for_observations_of_the_target() -> None:
    *_, data = _run(0.0, "mmd", {}, {})
    assert min(data.clock.env_steps.values()) >= data.warmup_env_steps


def test_nothing_is_observed_unless_an_objective_asks() -> None:
    tasks = {"near": NEAR, "far": _far(0.0, "near")}
    data = small_data(tasks)
    fit(data, MultiTaskDQN(data.task_infos, NETWORK))
    assert data.source is not None
    assert data.source.next_phase().transitions.observed == {}
