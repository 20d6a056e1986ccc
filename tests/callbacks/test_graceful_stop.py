import signal
from unittest.mock import Mock

import pytest

from lit_mtdqn.callbacks import GracefulStop


def test_the_first_signal_waits_for_the_end_of_the_phase() -> None:
    stop = GracefulStop()
    stop.on_fit_start(Mock(), Mock())
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        stop.on_train_batch_end()


def test_the_second_signal_aborts_at_once() -> None:
    stop = GracefulStop()
    stop.on_fit_start(Mock(), Mock())
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("ending", ["on_train_end", "on_exception"])
def test_the_signal_is_given_back(ending: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = GracefulStop()
    stop.on_fit_start(Mock(), Mock())
    assert signal.getsignal(signal.SIGINT) != before
    getattr(stop, ending)(Mock(), Mock())
    assert signal.getsignal(signal.SIGINT) == before


def test_without_a_signal_training_goes_on() -> None:
    stop = GracefulStop()
    stop.on_fit_start(Mock(), Mock())
    stop.on_train_batch_end()
    stop.on_validation_batch_end()
    stop.on_train_end(Mock(), Mock())
