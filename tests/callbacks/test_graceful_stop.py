import os
import signal
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import lightning
import pytest
from helpers.runs import fit, quiet_trainer, small_data, small_model
from lightning.pytorch.callbacks import Callback

from lit_mtdqn.callbacks import GracefulStop


class Strategy:
    """That of a rank beside others of which one was told, or of one process."""

    def __init__(self, others: bool = False) -> None:
        self.others = others

    def reduce_boolean_decision(self, decision: bool, all: bool) -> bool:
        assert not all
        return decision or self.others


ALONE: Any = SimpleNamespace(world_size=1, strategy=Strategy())


def started() -> GracefulStop:
    """Return a callback in the middle of a phase."""
    stop = GracefulStop()
    stop.on_fit_start(ALONE, Mock())
    stop.on_train_batch_start(Mock(), Mock())
    return stop


@pytest.fixture(autouse=True)
def _own_handler() -> Any:
    # What is started in the background may have been told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_waits_for_the_end_of_the_phase() -> None:
    stop = started()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        stop.on_phase_start(ALONE)


def test_after_the_run_the_signal_is_that_of_before_even_where_lightning_gives_it_back() -> None:
    stop = started()
    stop.on_train_end(ALONE, Mock())
    signal.signal(signal.SIGINT, stop._on_signal)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_the_second_signal_aborts_at_once() -> None:
    started()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_before_the_first_phase_is_trained_on_it_stops_at_once() -> None:
    GracefulStop().on_fit_start(ALONE, Mock())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_in_an_evaluation_it_stops_at_once() -> None:
    started().on_validation_start(Mock(), Mock())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_just_before_an_evaluation_stops_it() -> None:
    stop = started()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        stop.on_validation_start()


def test_after_an_evaluation_it_waits_again() -> None:
    stop = started()
    stop.on_validation_start()
    stop.on_validation_end()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        stop.on_phase_start(ALONE)


def test_a_second_fit_knows_nothing_of_the_first() -> None:
    stop = started()
    signal.raise_signal(signal.SIGINT)
    stop.on_train_end(Mock(), Mock())
    stop.on_fit_start(ALONE, Mock())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    stop.on_fit_start(ALONE, Mock())
    stop.on_train_batch_start()
    stop.on_phase_start(ALONE)


@pytest.mark.parametrize("ending", ["on_train_end", "on_exception"])
def test_the_signal_is_given_back(ending: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = started()
    assert signal.getsignal(signal.SIGINT) != before
    getattr(stop, ending)(Mock(), Mock())
    assert signal.getsignal(signal.SIGINT) == before


def test_without_a_signal_training_goes_on() -> None:
    stop = started()
    stop.on_phase_start(ALONE)
    stop.on_validation_start()
    stop.on_validation_end()
    stop.on_train_end(Mock(), Mock())


def test_a_rank_stops_where_another_was_told() -> None:
    stop, trainer = GracefulStop(), SimpleNamespace(world_size=2, strategy=Strategy())
    stop.on_fit_start(trainer, Mock())  # type: ignore[arg-type]
    stop.on_phase_start(trainer)  # type: ignore[arg-type]
    trainer.strategy.others = True
    with pytest.raises(KeyboardInterrupt):
        stop.on_phase_start(trainer)  # type: ignore[arg-type]


def test_one_of_several_ranks_leaves_no_evaluation_and_no_warm_up() -> None:
    stop, trainer = GracefulStop(), SimpleNamespace(world_size=2, strategy=Strategy())
    stop.on_fit_start(trainer, Mock())  # type: ignore[arg-type]
    signal.raise_signal(signal.SIGINT)
    stop.on_validation_start()
    with pytest.raises(KeyboardInterrupt):
        stop.on_phase_start(trainer)  # type: ignore[arg-type]


class Pressing(Callback):
    """Presses Ctrl-C in one hook."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.press)

    def press(self, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("hook", "phases"),
    [("on_train_start", 0), ("on_train_batch_start", 1), ("on_validation_epoch_start", 5)],
)
def test_a_run_stops_where_nothing_is_lost(hook: str, phases: int) -> None:
    """Five phases make an epoch, which ends with an evaluation."""
    data = small_data(total_env_steps=400)
    with pytest.raises(SystemExit):
        fit(data, small_model(data), GracefulStop(), Pressing(hook))
    assert data.clock.updates == 2 * phases


def test_a_trainer_that_was_stopped_can_fit_again() -> None:
    data, stop = small_data(), GracefulStop()
    model = small_model(data)
    first: lightning.Trainer = quiet_trainer(Pressing("on_train_start"), stop)
    with pytest.raises(SystemExit):
        first.fit(model, data)
    quiet_trainer(stop).fit(model, data)
    assert data.clock.total_env_steps >= 100
