"""A SIGHUP that the process was started to ignore, as by nohup, stays ignored; others are not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from sweeper.execution.signals import handled
from trials.running.stop_requests import stop_requests


@pytest.fixture
def ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.fault("output-gone")
@pytest.mark.usefixtures("ignored")
def test_nohup_is_respected_by_sweeps() -> None:
    seen: list[signal.Signals] = []
    with handled(seen.append) as again:
        os.kill(os.getpid(), signal.SIGHUP)
        again()
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.fault("output-gone")
@pytest.mark.usefixtures("ignored")
def test_nohup_is_respected_by_single_trials() -> None:
    with stop_requests() as asked:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == [signal.SIGINT]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.usefixtures("not_under_nohup")
def test_without_nohup_it_stops_a_trial() -> None:
    with stop_requests() as asked:
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked == [signal.SIGHUP]
