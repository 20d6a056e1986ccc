from typing import Any

import lightning
import pytest
import torch
from helpers.counting_env import VECTOR
from helpers.runs import fit, quiet_trainer, small_data, small_model
from helpers.tape import Tape
from lightning.pytorch.callbacks import Callback

from lit_mtdqn import DQN, RolloutDataModule, TaskSpec
from lit_mtdqn.callbacks import EpsilonDecay
from lit_mtdqn.networks import LinearHead
from lit_mtdqn.types import Clock

# Copies of the environment tell who plays: 2 train, 3 validate, 5 test. No episode ends, so that
# every row counts: 8 env steps and 2 updates a phase, 5 phases an epoch.
ENDLESS = (10_000,)
NUM_ACTIONS = 7
WARMUP = 16


class Recorder(Callback):
    """Notes on a tape when the Trainer does what."""

    def __init__(self, tape: Tape, name: str = "") -> None:
        self.tape = tape
        self.name = name

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.tape.record("train", clock=self._clock(trainer))

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.tape.record("trained", clock=self._clock(trainer))

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.tape.record("validate", clock=self._clock(trainer))

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.tape.record("validated", clock=self._clock(trainer))

    def on_update_end(self, trainer: lightning.Trainer, learner: DQN, clock: Clock) -> None:
        self.tape.record("update" + self.name, number=clock.updates, clock=self._clock(trainer))

    def _clock(self, trainer: lightning.Trainer) -> tuple[int, int, int]:
        clock: Clock = trainer.datamodule.clock  # type: ignore[attr-defined]
        return clock.total_env_steps, clock.updates, clock.phases


def _data(tape: Tape, **options: Any) -> RolloutDataModule:
    kwargs = {"tape": tape, "pattern": ENDLESS, "num_actions": NUM_ACTIONS}
    spec = TaskSpec(env=VECTOR, kwargs=kwargs)
    settings = {"warmup_env_steps": WARMUP, "eval_max_steps": 4, "total_env_steps": 96}
    return small_data({"count": spec}, **{**settings, **options})


@pytest.fixture
def run() -> tuple[Tape, RolloutDataModule]:
    """Return the tape of a whole run: 96 env steps, the first phase twice as long as the others."""
    tape = Tape()
    data = _data(tape)
    fit(data, small_model(data), Recorder(tape))
    return tape, data


def _words(tape: Tape) -> str:
    """Return a tape as one letter per event."""
    letters = {"train": "<", "trained": ">", "update": "u", "validate": "[", "validated": "]"}
    players = {("step", 2): "s", ("reset", 2): "R", ("step", 3): "v", ("reset", 3): "V"}
    return "".join(
        letters.get(event.name) or players[event.name, event.details["num_envs"]]
        for event in tape.events
    )


def test_fetching_and_training_take_turns_and_an_epoch_ends_in_an_evaluation(
    run: tuple[Tape, RolloutDataModule],
) -> None:
    phase = "ssss<uu>"
    warmup = "Rssss" + phase
    evaluation = "[Vvvvv]"
    epoch = 5 * phase + evaluation
    assert _words(run[0]) == warmup + 4 * phase + evaluation + epoch + phase + evaluation


def test_training_environments_are_reset_once_and_evaluation_does_not_touch_them(
    run: tuple[Tape, RolloutDataModule],
) -> None:
    tape, data = run
    assert len(tape.named("reset", num_envs=2)) == 1
    inside = False
    for event in tape.events:
        inside = {"validate": True, "validated": False}.get(event.name, inside)
        assert not (inside and event.details.get("num_envs") == 2)
    assert len(tape.named("step", num_envs=2)) * 2 == data.clock.total_env_steps == 96


def test_validation_happens_at_the_stated_env_steps_and_last_at_the_budget(
    run: tuple[Tape, RolloutDataModule],
) -> None:
    steps = [event.details["clock"][0] for event in run[0].named("validate")]
    assert steps == [WARMUP + 32, WARMUP + 72, 96]


def test_every_phase_makes_all_its_updates_and_each_is_counted(
    run: tuple[Tape, RolloutDataModule],
) -> None:
    tape, data = run
    numbers = [event.details["number"] for event in tape.named("update")]
    assert numbers == list(range(1, 23))
    starts = [event.details["clock"] for event in tape.named("train")]
    assert starts == [(WARMUP + 8 * phase, 2 * phase, phase + 1) for phase in range(11)]
    assert (data.clock.updates, data.clock.phases) == (22, 11)


@pytest.mark.parametrize(
    ("budget", "clock"),
    [
        ({"total_env_steps": 40}, (40, 8, 4)),
        ({"total_env_steps": 41}, (48, 10, 5)),
        ({"total_env_steps": None, "total_updates": 8}, (40, 8, 4)),
        ({"total_env_steps": None, "total_updates": 7}, (40, 8, 4)),
        ({"total_env_steps": 96, "total_updates": 3}, (24, 4, 2)),
    ],
)
def test_a_run_stops_with_the_phase_that_uses_up_its_budget_and_is_evaluated(
    budget: dict[str, Any], clock: tuple[int, int, int]
) -> None:
    tape = Tape()
    data = _data(tape, evaluate_every_env_steps=800, **budget)
    fit(data, small_model(data), Recorder(tape))
    assert [event.details["clock"] for event in tape.named("validate")] == [clock]
    assert tape.events[-1].name == "validated"


def test_a_finished_run_that_is_resumed_stops_at_once(tmp_path: Any) -> None:
    data = _data(Tape())
    path = str(tmp_path / "last.ckpt")
    fit(data, small_model(data)).save_checkpoint(path)
    tape = Tape()
    resumed = _data(tape)
    trainer = quiet_trainer(Recorder(tape))
    trainer.fit(small_model(resumed), resumed, ckpt_path=path, weights_only=True)
    assert not tape.named("update")
    assert resumed.clock == data.clock


class Steering(Callback):
    """Makes the number of updates, modulo the actions, the greedy action everywhere."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.on_update_end(trainer, pl_module, trainer.datamodule.clock)  # type: ignore[attr-defined]

    def on_update_end(self, trainer: lightning.Trainer, learner: DQN, clock: Clock) -> None:
        head = learner.network.head
        assert isinstance(head, LinearHead)
        with torch.no_grad():
            head.values.weight.zero_()
            head.values.bias.zero_()
            head.values.bias[..., clock.updates % NUM_ACTIONS] = 1.0


def test_a_phase_is_played_by_the_network_that_the_updates_before_it_left() -> None:
    tape = Tape()
    data = _data(tape, warmup_env_steps=0)
    fit(data, small_model(data), EpsilonDecay(start=0.0, end=0.0), Steering())
    actions = [event.details["actions"] for event in tape.named("step", num_envs=2)]
    phases = range(len(actions) // 4)
    assert actions == [[2 * phase % NUM_ACTIONS] * 2 for phase in phases for _ in range(4)]


def test_an_evaluation_is_played_by_the_newest_network() -> None:
    tape = Tape()
    data = _data(tape)
    fit(data, small_model(data), Recorder(tape), Steering())
    updates = 0
    for event in tape.events:
        updates = event.details.get("number", updates)
        if event.name == "step" and event.details["num_envs"] == 3:
            assert event.details["actions"] == [updates % NUM_ACTIONS] * 3


def test_callbacks_hear_of_every_update_in_their_order() -> None:
    tape = Tape()
    data = _data(tape, total_env_steps=32)
    model = small_model(data)
    fit(data, model, Recorder(tape, " first"), EpsilonDecay(), Recorder(tape, " second"))
    heard = [event for event in tape.events if event.name.startswith("update")]
    assert [(event.name, event.details["number"]) for event in heard] == [
        (f"update {name}", number) for number in range(1, 7) for name in ("first", "second")
    ]


def test_environments_go_on_where_they_were_when_a_trainer_is_used_again() -> None:
    tape = Tape()
    data = _data(tape, total_env_steps=40)
    model = small_model(data)
    trainer = fit(data, model)
    data.total_env_steps = 80
    trainer.should_stop = False
    trainer.fit(model, data)
    assert len(tape.named("reset", num_envs=2)) == 1
    assert data.clock.total_env_steps == 80
