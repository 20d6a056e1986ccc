import os
import signal
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import lightning
import pytest
from helpers.runs import fit, quiet_trainer, small_data, small_model
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_mtdqn.callbacks import GracefulStop


class Strategy:
    """That of a rank beside others that answer so, question by question, or of one process."""

    def __init__(self) -> None:
        self.others: list[bool] = []

    def reduce_boolean_decision(self, decision: bool, all: bool) -> bool:
        assert not all
        return decision or (self.others.pop(0) if self.others else False)


FITTING = SimpleNamespace(fn=TrainerFn.FITTING)
ALONE: Any = SimpleNamespace(world_size=1, strategy=Strategy(), state=FITTING)


STOPS = pytest.mark.parametrize(
    ("number", "stop_error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SIGTERMException)],
)


def started() -> GracefulStop:
    """Return a callback in the middle of a phase."""
    stop = GracefulStop()
    stop.on_fit_start(ALONE, Mock())
    stop.on_train_batch_start(Mock(), Mock())
    return stop


@pytest.fixture(autouse=True)
def _own_handler() -> None:
    # What is started in the background may have been told to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@STOPS
def test_the_first_signal_waits_for_the_end_of_the_phase(
    number: signal.Signals, stop_error: type[BaseException]
) -> None:
    stop = started()
    signal.raise_signal(number)
    with pytest.raises(stop_error):
        stop.on_phase_start(ALONE)


def test_after_the_run_the_signal_is_that_of_before_even_where_lightning_gives_it_back() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    stop = started()
    stop.teardown(ALONE, Mock(), "fit")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop._on_signal)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_after_the_run_a_process_that_ignored_a_signal_ignores_it_again() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stop = started()
    stop.teardown(ALONE, Mock(), "fit")
    signal.signal(signal.SIGTERM, stop._on_signal)
    signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_aborts_at_once(first: signal.Signals) -> None:
    started()
    signal.raise_signal(first)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_changes_nothing() -> None:
    stop = started()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SIGTERMException):
        stop.on_phase_start(ALONE)


def test_while_checkpoints_are_written_another_sigterm_is_ignored() -> None:
    stop = started()
    stop.on_train_start()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SIGTERMException):
        stop.on_phase_start(ALONE)
    stop.on_exception()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@STOPS
def test_before_the_first_phase_is_trained_on_it_stops_at_once(
    number: signal.Signals, stop_error: type[BaseException]
) -> None:
    GracefulStop().on_fit_start(ALONE, Mock())
    with pytest.raises(stop_error):
        signal.raise_signal(number)


@STOPS
def test_in_an_evaluation_it_stops_at_once(
    number: signal.Signals, stop_error: type[BaseException]
) -> None:
    started().on_validation_start(Mock(), Mock())
    with pytest.raises(stop_error):
        signal.raise_signal(number)


@STOPS
def test_a_signal_just_before_an_evaluation_stops_it(
    number: signal.Signals, stop_error: type[BaseException]
) -> None:
    stop = started()
    signal.raise_signal(number)
    with pytest.raises(stop_error):
        stop.on_validation_start(ALONE, Mock())


@STOPS
def test_after_an_evaluation_it_waits_again(
    number: signal.Signals, stop_error: type[BaseException]
) -> None:
    stop = started()
    stop.on_validation_start(ALONE, Mock())
    stop.on_validation_end(ALONE, Mock())
    signal.raise_signal(number)
    with pytest.raises(stop_error):
        stop.on_phase_start(ALONE)


def test_a_second_fit_knows_nothing_of_the_first() -> None:
    stop = started()
    signal.raise_signal(signal.SIGINT)
    stop.teardown(Mock(), Mock(), "fit")
    stop.on_fit_start(ALONE, Mock())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    stop.on_fit_start(ALONE, Mock())
    stop.on_train_batch_start()
    stop.on_phase_start(ALONE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ending", ["teardown", "on_exception"])
def test_the_signals_are_given_back(ending: str, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = started()
    assert signal.getsignal(number) != before
    getattr(stop, ending)(Mock(), Mock(), Mock())
    assert signal.getsignal(number) == before


@STOPS
def test_in_the_final_test_it_stops_at_once(
    number: signal.Signals, stop_error: type[BaseException]
) -> None:
    started().on_fit_end(ALONE, Mock())
    with pytest.raises(stop_error):
        signal.raise_signal(number)


@STOPS
def test_a_signal_in_the_last_phase_leaves_out_the_final_test(
    number: signal.Signals, stop_error: type[BaseException]
) -> None:
    stop = started()
    signal.raise_signal(number)
    with pytest.raises(stop_error):
        stop.on_fit_end(ALONE, Mock())


def test_several_ranks_wait_for_no_agreement_in_the_final_test() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop, trainer = GracefulStop(), SimpleNamespace(world_size=2, strategy=Strategy())
    stop.on_fit_start(trainer, Mock())  # type: ignore[arg-type]
    stop.on_fit_end(trainer, Mock())  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_a_signal_training_goes_on() -> None:
    stop = started()
    stop.on_phase_start(ALONE)
    stop.on_validation_start(ALONE, Mock())
    stop.on_validation_end(ALONE, Mock())
    stop.on_fit_end(ALONE, Mock())


@pytest.mark.parametrize(
    ("others", "stop_error"),
    [([True, False], KeyboardInterrupt), ([True, True], SIGTERMException)],
)
def test_a_rank_stops_where_another_was_told(
    others: list[bool], stop_error: type[BaseException]
) -> None:
    stop, trainer = GracefulStop(), SimpleNamespace(world_size=2, strategy=Strategy())
    stop.on_fit_start(trainer, Mock())  # type: ignore[arg-type]
    stop.on_phase_start(trainer)  # type: ignore[arg-type]
    # Whether one was told, and whether by SIGTERM.
    trainer.strategy.others = others
    with pytest.raises(stop_error):
        stop.on_phase_start(trainer)  # type: ignore[arg-type]


def test_one_of_several_ranks_leaves_no_evaluation_and_no_warm_up() -> None:
    stop, trainer = GracefulStop(), SimpleNamespace(world_size=2, strategy=Strategy())
    stop.on_fit_start(trainer, Mock())  # type: ignore[arg-type]
    signal.raise_signal(signal.SIGINT)
    stop.on_validation_start(ALONE, Mock())
    with pytest.raises(KeyboardInterrupt):
        stop.on_phase_start(trainer)  # type: ignore[arg-type]


class Pressing(Callback):
    """Presses Ctrl-C, or sends SIGTERM, in one hook."""

    def __init__(self, hook: str, number: signal.Signals = signal.SIGINT) -> None:
        self.number = number
        setattr(self, hook, self.press)

    def press(self, *_: Any) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("hook", "phases"),
    [("on_train_start", 0), ("on_train_batch_start", 1), ("on_validation_epoch_start", 5)],
)
def test_a_run_stops_where_nothing_is_lost(hook: str, phases: int, number: signal.Signals) -> None:
    """Five phases make an epoch, which ends with an evaluation."""
    data = small_data(total_env_steps=400)
    with pytest.raises(SystemExit):
        fit(data, small_model(data), GracefulStop(), Pressing(hook, number))
    assert data.clock.updates == 2 * phases


def test_a_trainer_that_was_stopped_can_fit_again() -> None:
    data, stop = small_data(), GracefulStop()
    model = small_model(data)
    first: lightning.Trainer = quiet_trainer(Pressing("on_train_start"), stop)
    with pytest.raises(SystemExit):
        first.fit(model, data)
    quiet_trainer(stop).fit(model, data)
    assert data.clock.total_env_steps >= 100


@STOPS
@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_command_that_only_evaluates_ends_at_once(
    command: str, number: signal.Signals, stop_error: type[BaseException]
) -> None:
    before = signal.getsignal(number)
    hook = {"validate": "on_validation_batch_start", "test": "on_test_batch_start"}[command]
    sends = Mock(spec=Callback)
    getattr(sends, hook).side_effect = lambda *_: signal.raise_signal(number)
    data = small_data()
    trainer = quiet_trainer(callbacks=[GracefulStop(), sends])
    # Lightning makes an exit code of Ctrl-C.
    expected = SystemExit if number == signal.SIGINT else stop_error
    with pytest.raises(expected):
        getattr(trainer, command)(small_model(data), data)
    assert getattr(sends, hook).call_count == 1
    assert signal.getsignal(number) == before


def test_ranks_that_only_evaluate_leave_sigterm_to_lightning() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = GracefulStop()
    two: Any = SimpleNamespace(world_size=2, strategy=Strategy())
    stop.on_test_start(two, Mock())
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("command", ["validate", "test"])
def test_after_a_command_that_only_evaluates_sigterm_is_that_of_before(command: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    data = small_data()
    stop = GracefulStop()
    stop._told = signal.SIGTERM  # as an earlier fit that was stopped has left it
    trainer = quiet_trainer(callbacks=[stop])
    getattr(trainer, command)(small_model(data), data)
    assert signal.getsignal(signal.SIGTERM) == before
