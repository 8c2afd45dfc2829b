"""Signals act once, also those that reach a handler of Ray's between the two installations of the driver's."""

import os
import signal

import pytest

from sweeper.execution.signals import WATCHED, handled


@pytest.mark.usefixtures("no_stray_handlers")
@pytest.mark.parametrize("number", WATCHED)
def test_a_signal_that_another_handler_took_acts_once_the_handlers_are_back(number: signal.Signals) -> None:
    acted: list[signal.Signals] = []
    wakeup = signal.set_wakeup_fd(-1)
    with handled(acted.append) as again:
        signal.signal(number, lambda *_: None)  # as Ray's, whose SystemExit may be dropped
        os.kill(os.getpid(), number)
        assert acted == []
        again()
        assert acted == [number]
        again()
        assert acted == [number]
        os.kill(os.getpid(), number)
        again()
        assert acted == [number, number]
    assert signal.set_wakeup_fd(wakeup) == -1


@pytest.mark.usefixtures("no_stray_handlers")
def test_every_signal_acts_once() -> None:
    acted: list[signal.Signals] = []
    with handled(acted.append) as again:
        for number in WATCHED:
            os.kill(os.getpid(), number)
        again()
    assert acted == list(WATCHED)


@pytest.mark.usefixtures("no_stray_handlers")
@pytest.mark.parametrize("number", WATCHED)
def test_a_signal_cancels_the_alarm_by_which_rays_native_handler_aborts(number: signal.Signals) -> None:
    with handled(lambda _: None):
        signal.alarm(60)  # as that handler, which runs before Python's
        os.kill(os.getpid(), number)
        assert signal.alarm(0) == 0
