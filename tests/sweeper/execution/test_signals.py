"""Signals act once, also those that reach a handler of Ray's between the two installations of the driver's."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sweeper.execution.on_ray import stopping
from sweeper.execution.signals import WATCHED, alarms_held, handled
from sweeper.execution.stop_file import StopFile
from tests.trials.processes import wait_for
from trials.storage.leases.lease import Lease


@pytest.mark.usefixtures("not_under_nohup", "no_stray_handlers")
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


@pytest.mark.usefixtures("not_under_nohup", "no_stray_handlers")
def test_every_signal_acts_once() -> None:
    acted: list[signal.Signals] = []
    with handled(acted.append) as again:
        for number in WATCHED:
            os.kill(os.getpid(), number)
        again()
    assert acted == list(WATCHED)


@pytest.mark.usefixtures("not_under_nohup", "no_stray_handlers")
@pytest.mark.parametrize("number", WATCHED)
def test_a_signal_cancels_the_alarm_by_which_rays_native_handler_aborts(number: signal.Signals) -> None:
    with handled(lambda _: None):
        signal.alarm(60)  # as that handler, which runs before Python's
        os.kill(os.getpid(), number)
        assert signal.alarm(0) == 0


HELD_UP = """
import ctypes, signal, threading, time
from sweeper.execution.signals import alarms_held, handled
with alarms_held():
    threading.Thread(target=time.sleep, args=[1.5]).start()
    with handled(lambda number: print(number.name)):
        signal.setitimer(signal.ITIMER_REAL, 0.3)  # as Ray's native handler, which runs before Python's
        holder = threading.Thread(target=ctypes.PyDLL(None).usleep, args=[600_000])  # holds Python's lock, as Ray does
        holder.start()
        holder.join()
        signal.raise_signal(signal.SIGTERM)
assert signal.SIGALRM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


@pytest.mark.fault("driver-signals")
def test_the_alarm_ends_no_process_that_cannot_cancel_it_in_time() -> None:
    ended = subprocess.run([sys.executable, "-c", HELD_UP], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "SIGTERM\n", "")


def test_an_alarm_of_the_block_is_dropped_with_it() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with alarms_held():
        signal.raise_signal(signal.SIGALRM)
    assert signal.getsignal(signal.SIGALRM) == before
    assert not signal.sigpending() & {signal.SIGALRM}


@pytest.mark.fault("storage-full")
def test_a_stop_request_is_written_once_the_storage_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "FIRST_PUT_PAUSE_S", 0.01)
    put, tries = StopFile.put, []

    def full(stop_file: StopFile, token: str) -> None:
        tries.append(token)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(stop_file, token)

    monkeypatch.setattr(StopFile, "put", full)
    stop_file = StopFile(tmp_path / "stop")
    with Lease(tmp_path / "lock") as lease:
        assert lease.acquire()
        token = lease.token
        stopping._put_aside(stop_file, lease, threading.Event())
    wait_for(stop_file.there, "the stop file")
    assert (tmp_path / "stop").read_text() == token
    assert tries == [token] * 3


def test_a_stop_request_ends_with_its_run(tmp_path: Path) -> None:
    stop_file, over = StopFile(tmp_path / "missing" / "stop"), threading.Event()
    before = set(threading.enumerate())
    stopping._put_aside(stop_file, Lease(tmp_path / "lock"), over)
    (thread,) = set(threading.enumerate()) - before
    thread.join(0.1)
    assert thread.is_alive()
    over.set()
    thread.join(10)
    assert not thread.is_alive()
