"""Task samplers and prioritised replays in a data module and under a Trainer."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from helpers.asserts import complaint
from helpers.counting_env import VECTOR, identity_of
from helpers.oracle import timeline, transitions
from helpers.runs import COUNTING, fit, quiet_trainer, small_data, small_model
from helpers.tape import Tape
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import RolloutDataModule, TaskSpec
from lit_mtdqn.data import FixedShares, GumbelTopK, SoftmaxTasks
from lit_mtdqn.replay import Prioritisation
from lit_mtdqn.types import Feedback, Phase

RANGE = (0.0, 10.0)
TASKS = {name: TaskSpec(env=VECTOR, score_range=RANGE) for name in ("a", "b", "c")}


def _ready(tasks: dict[str, TaskSpec] = TASKS, **options: Any) -> RolloutDataModule:
    """Return a data module that can hand out phases without a fit; it acts at random."""
    data = small_data(tasks, **{"warmup_env_steps": 10, **options})
    data.trainer = quiet_trainer()
    data.trainer.strategy.connect(small_model(data))
    data.setup("fit")
    return data


def _next(data: RolloutDataModule) -> Phase:
    assert data.source is not None
    return data.source.next_phase()


def _report(data: RolloutDataModule, phase: Phase, errors: torch.Tensor) -> None:
    transitions_ = phase.transitions
    data.on_feedback(Feedback(transitions_.task, transitions_.replay_index, errors, {}))


def _taped(**fields: Any) -> tuple[dict[str, TaskSpec], dict[str, Tape]]:
    tapes = {name: Tape() for name in ("a", "b")}
    specs = {
        name: TaskSpec(env=VECTOR, kwargs={"tape": tape}, **fields) for name, tape in tapes.items()
    }
    return specs, tapes


def _steps(tapes: dict[str, Tape]) -> list[int]:
    return [len(tape.named("step", num_envs=2)) for tape in tapes.values()]


def test_shares_of_env_steps_are_kept_exactly_after_the_warm_up() -> None:
    tasks, tapes = _taped()
    sampler = FixedShares({"a": 5.0, "b": 3.0}, steers="env_steps")
    data = _ready(tasks, sampler=sampler)
    _next(data)
    start = _steps(tapes)
    assert start[0] == start[1]
    for phases in range(1, 9):
        _next(data)
        made = [now - then for now, then in zip(_steps(tapes), start, strict=True)]
        assert sum(made) == 8 * phases
        assert made == pytest.approx([5 * phases, 3 * phases], abs=1)


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_task_that_stands_still_leaves_the_transitions_and_env_steps_that_it_made(
    n_step: int,
) -> None:
    tasks, tapes = _taped(n_step=n_step, gamma=0.5)
    data = _ready(tasks, sampler=FixedShares({"a": 7.0, "b": 1.0}, steers="env_steps"))
    for _ in range(9):
        _next(data)
    steps = _steps(tapes)
    assert steps[0] > 2 * steps[1]
    for slot, made in zip(data.slots, steps, strict=True):
        (reset,) = tapes[slot.task].named("reset", num_envs=2)
        identities = [identity_of(reset.details["seed"] + place) for place in range(2)]
        events = tapes[slot.task].named("step", num_envs=2)
        actions = torch.tensor([event.details["actions"] for event in events]).numpy()
        expected = transitions(identities, actions, slot.spec, num_actions=2)
        assert len(slot.replay) == len(expected)
        columns = slot.replay.sample(4_000)
        names = ("observation", "action", "reward", "discount", "next_observation")
        rows = torch.cat([columns[name].view(4_000, -1).double() for name in names], 1)
        assert {tuple(row) for row in rows.tolist()} == {
            (*e.observation, e.action, e.reward, e.discount, *e.next_observation) for e in expected
        }
        moments = [timeline(identity, made) for identity in identities]
        valid = sum(moment is not None for column in moments for moment in column)
        assert data.clock.env_steps[slot.task] == valid


def test_by_default_no_task_ever_stands_still() -> None:
    data = _ready()
    for _ in range(3):
        _next(data)
        assert data.source is not None
        assert data.source.active is None


def test_a_batch_holds_fewer_groups_than_tasks_if_the_sampler_draws_fewer() -> None:
    data = _ready(sampler=GumbelTopK(2))
    phase = _next(data)
    assert phase.transitions.task.shape == (2, 2)
    assert phase.transitions.observation.shape == (2, 2, 4, 3)


def test_errors_reach_the_rows_that_made_them_however_unevenly_tasks_were_drawn() -> None:
    sampler = FixedShares({"a": 6.0, "b": 2.0, "c": 1.0})
    data = _ready(sampler=sampler, prioritisation=Prioritisation(alpha=1.0, epsilon=1e-9))
    told: dict[tuple[int, int], float] = {}
    for _ in range(8):
        phase = _next(data)
        task, index = phase.transitions.task, phase.transitions.replay_index
        errors = 1.0 + index + 1_000.0 * task.unsqueeze(-1)
        _report(data, phase, errors)
        groups = task.unsqueeze(-1).expand_as(index).flatten().tolist()
        told.update(
            zip(
                zip(groups, index.flatten().tolist(), strict=True),
                errors.flatten().tolist(),
                strict=True,
            )
        )
    for slot in data.slots:
        own = {row: error for (task, row), error in told.items() if task == slot.index}
        rows = slot.replay.sample(20_000)["replay_index"]
        counts = torch.bincount(rows, minlength=len(slot.replay)).double()
        base = next(iter(own))
        for row, error in own.items():
            expected = counts[base] * error / own[base]
            assert float(counts[row]) == pytest.approx(float(expected), abs=4, rel=0.05)


def test_importance_weights_come_with_the_batch_and_are_relative_within_each_task() -> None:
    data = _ready(prioritisation=Prioritisation(alpha=1.0, beta=1.0, epsilon=1e-9))
    phase = _next(data)
    assert bool((phase.transitions.weight == 1.0).all())
    scale = 10.0 ** phase.transitions.task.unsqueeze(-1)
    _report(data, phase, scale * (1.0 + torch.rand(phase.transitions.reward.shape)))
    weight = _next(data).transitions.weight
    assert weight.shape == phase.transitions.reward.shape
    assert weight.amax((0, 2)).tolist() == [1.0, 1.0, 1.0]
    assert bool((weight > 0.45).all())
    assert bool((weight < 1.0).any())


def test_without_prioritisation_all_weights_are_one() -> None:
    data = _ready()
    _report(data, phase := _next(data), torch.rand(phase.transitions.reward.shape))
    assert bool((_next(data).transitions.weight == 1.0).all())


def test_training_episodes_score_the_tasks_that_act() -> None:
    data = _ready({**TASKS, "d": TaskSpec(env=VECTOR, success_key="success")})
    for _ in range(12):
        rollout = _next(data).rollout
    for name in TASKS:
        assert data.scores.score(name) == pytest.approx(
            rollout[f"rollout/episode_return/{name}"] / 10
        )
    assert data.scores.score("d") == rollout["rollout/success/d"] > 0.0


def test_evaluation_scores_the_tasks_that_do_not_act(tmp_path: Path) -> None:
    stored = small_data({"a": COUNTING})
    fit(stored, small_model(stored))
    stored.dump_replay(tmp_path)
    offline = TaskSpec(env=VECTOR, replay=str(tmp_path / "a"), score_range=RANGE)
    tasks = {"a": offline, "b": TASKS["b"]}
    data = small_data(tasks, sampler=SoftmaxTasks())
    trainer = fit(data, small_model(data))
    assert data.scores.score("a") == pytest.approx(float(trainer.callback_metrics["val/score/a"]))


def test_following_scores_needs_a_score_for_every_task() -> None:
    tasks = {**TASKS, "d": COUNTING}
    small_data(tasks, sampler=SoftmaxTasks("td_error"))
    with pytest.raises(ValueError, match=complaint("tasks.d.score_range")):
        small_data(tasks, sampler=SoftmaxTasks("progress"))


class _Names(Callback):
    """Remembers the names of the tasks that were trained in each phase."""

    def __init__(self) -> None:
        self.trained: list[set[str]] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        names = [info.name for info in pl_module.tasks]
        self.trained.append({f"train/td_loss/{names[i]}" for i in batch.transitions.task.flatten()})


@pytest.mark.parametrize("steers", ["updates", "env_steps", "both"])
@pytest.mark.parametrize("prioritisation", [None, Prioritisation()])
def test_training_goes_well_with_fewer_groups_than_tasks_and_reports_those_alone(
    steers: Any, prioritisation: Prioritisation | None
) -> None:
    sampler = GumbelTopK(1, floor=0.0, temperature=0.1, steers=steers)
    data = small_data(TASKS, sampler=sampler, prioritisation=prioritisation, total_env_steps=300)
    model = small_model(data)
    names = _Names()
    log = Mock(wraps=model.log_dict)
    model.log_dict = log  # type: ignore[method-assign]
    fit(data, model, names, log_every_n_steps=1)
    logged = [{name for name in call.args[0] if "/td_loss/" in name} for call in log.mock_calls]
    assert [entry for entry in logged if entry] == names.trained
    widths = {len(trained) for trained in names.trained}
    assert widths == {3} if steers == "env_steps" else widths <= {1, 2}
    assert all(bool(p.isfinite().all()) for p in model.network.parameters())


@pytest.mark.parametrize(
    "sampler",
    [
        {"class": SoftmaxTasks, "score": "td_error", "steers": "both"},
        {"class": GumbelTopK, "k": 1, "score": "td_error", "steers": "both"},
        {"class": FixedShares, "shares": {"a": 1.0, "b": 2.0, "c": 4.0}, "steers": "both"},
    ],
    ids=["softmax", "gumbel", "fixed"],
)
def test_a_resumed_run_draws_and_plays_the_tasks_that_it_would_have(
    sampler: dict[str, Any],
) -> None:
    def make() -> RolloutDataModule:
        options = {name: value for name, value in sampler.items() if name != "class"}
        return _ready(sampler=sampler["class"](**options), warmup_env_steps=0)

    first, second = make(), make()
    for number in range(6):
        if number == 3:
            second.load_state_dict(first.state_dict())
        phase = _next(first)
        errors = torch.rand(phase.transitions.reward.shape) * (
            1.0 + phase.transitions.task
        ).unsqueeze(-1)
        _report(first, phase, errors)
        if number >= 3:
            again = _next(second)
            assert torch.equal(again.transitions.task, phase.transitions.task)
            _report(second, again, errors)
            assert second.sampler.state_dict() == first.sampler.state_dict()
            assert second.scores.values("td_error", ["a", "b", "c"]) == first.scores.values(
                "td_error", ["a", "b", "c"]
            )


def test_a_checkpoint_holds_scores_and_what_shares_are_owed(tmp_path: Path) -> None:
    sampler = {"a": 1.0, "b": 2.0, "c": 4.0}
    first = small_data(TASKS, sampler=FixedShares(sampler, steers="both"), total_env_steps=300)
    fit(first, small_model(first)).save_checkpoint(tmp_path / "run.ckpt")
    second = small_data(TASKS, sampler=FixedShares(sampler, steers="both"), total_env_steps=300)
    trainer = quiet_trainer()
    trainer.fit(small_model(second), second, ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    assert second.scores.state_dict() == first.scores.state_dict()
    assert second.sampler.state_dict() == first.sampler.state_dict()
    # The first episode after a resume is one of many.
    assert first.source is not None
    assert second.source is not None
    assert second.source.statistics.metrics() == first.source.statistics.metrics() != {}


def test_priorities_are_dumped_and_loaded_with_their_replays(tmp_path: Path) -> None:
    first, second = (_ready(prioritisation=Prioritisation()) for _ in range(2))
    phase = _next(first)
    _report(first, phase, torch.rand(phase.transitions.reward.shape))
    first.dump_replay(tmp_path)
    second.load_replay(tmp_path)
    for one, other in zip(first.slots, second.slots, strict=True):
        expected, actual = one.replay.sample(20), other.replay.sample(20)
        for name in ("replay_index", "weight"):
            assert torch.equal(actual[name], expected[name])
