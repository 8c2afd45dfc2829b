"""A lease has one owner at a time, and ends with it."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.trials.processes import CONTEXT, PATIENCE_S, started, wait_for
from trials.storage import outages
from trials.storage.leases import owner as owners
from trials.storage.leases.lease import Lease
from trials.storage.leases.owner import Owner, has_ended, new_token
from trials.storage.outages import StoragePatience

pytestmark = pytest.mark.fault("clocks-jump")


def until_acquired(lease: Lease) -> float:
    """Acquire a lease, trying repeatedly; return the seconds it took."""
    began = time.monotonic()
    wait_for(lease.acquire, "a lease")
    return time.monotonic() - began


def write_owner(folder: Path, **fields: object) -> Owner:
    owner = replace(Owner.me(), **fields)  # type: ignore[arg-type]
    (folder / "lease.json").write_text(json.dumps(asdict(owner)))
    return owner


def hold(folder: Path, pipe: Connection, patience_s: float = 60.0) -> None:
    """Acquire the lease, report it, and release it on request; for another process."""
    lease = Lease(folder, patience_s=patience_s)
    pipe.send(lease.acquire())
    if pipe.recv() == "release":
        lease.release()
        pipe.send("released")


def test_exclusive_and_free_again(tmp_path: Path) -> None:
    first, second = Lease(tmp_path / "folder"), Lease(tmp_path / "folder")
    assert first.owner() is None
    assert first.acquire()
    owner = second.owner()
    assert owner is not None
    assert (owner.host, owner.pid) == (socket.gethostname(), os.getpid())
    assert str(owner) == f"process {os.getpid()} on {socket.gethostname()}"
    assert not second.acquire()
    assert not first.acquire()
    with first:
        pass
    assert second.owner() is None
    assert second.acquire()
    assert not first.acquire()
    first.release()  # it holds nothing
    assert not Lease(tmp_path / "folder").acquire()
    second.release()


def test_leases_of_different_folders_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    with Lease(tmp_path / "a") as a, Lease(tmp_path / "b") as b:
        assert a.acquire()
        assert b.acquire()


def test_given_back_after_an_exception(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    assert lease.acquire()
    with pytest.raises(KeyError), lease:
        raise KeyError
    assert lease.owner() is None


def test_a_killed_owner_is_succeeded_at_once(tmp_path: Path) -> None:
    ours, theirs = CONTEXT.Pipe()
    lease = Lease(tmp_path, patience_s=PATIENCE_S)
    with started(hold, tmp_path, theirs) as process:
        assert ours.recv() is True
        assert not lease.acquire()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        assert until_acquired(lease) < PATIENCE_S / 2
    lease.release()


def test_a_process_that_took_over_the_number_of_a_dead_owner_is_not_the_owner(tmp_path: Path) -> None:
    write_owner(tmp_path, started="12345")  # our process id, another start time
    lease = Lease(tmp_path)
    assert lease.acquire()
    lease.release()


def test_a_silent_owner_on_another_host_is_succeeded_after_patience(tmp_path: Path) -> None:
    write_owner(tmp_path, host="elsewhere", pid=1)
    lease = Lease(tmp_path, patience_s=0.3)
    assert not lease.acquire()
    assert 0.2 < until_acquired(lease) < 5
    lease.release()


def test_an_owner_on_another_host_with_heartbeats_keeps_its_lease(tmp_path: Path) -> None:
    owner = write_owner(tmp_path, host="elsewhere", pid=1)
    lease = Lease(tmp_path, patience_s=0.3)
    for beat in range(8):
        write_owner(tmp_path, host="elsewhere", pid=1, token=owner.token, beat=beat)
        assert not lease.acquire()
        time.sleep(0.1)
    wait_for(lease.acquire, "the lease, once the heart stands still")
    lease.release()


def test_patience_is_not_counted_before_the_first_look(tmp_path: Path) -> None:
    write_owner(tmp_path, host="elsewhere", pid=1)
    time.sleep(0.15)
    assert not Lease(tmp_path, patience_s=0.1).acquire()


def test_the_owner_sends_heartbeats(tmp_path: Path) -> None:
    with Lease(tmp_path, heartbeat_s=0.01) as lease:
        assert lease.acquire()
        first = lease.owner()
        assert first is not None
        wait_for(lambda: (lease.owner() or first).beat >= 3, "three beats")
        now = lease.owner()
        assert now is not None
        assert now.token == first.token


def test_a_living_owner_is_not_succeeded_however_impatient_the_other_is(tmp_path: Path) -> None:
    with Lease(tmp_path, heartbeat_s=0.02) as lease:
        assert lease.acquire()
        other = Lease(tmp_path, patience_s=0.5)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert not other.acquire()
            time.sleep(0.02)


def test_an_owner_that_was_stopped_does_not_take_the_lease_from_its_successor(tmp_path: Path) -> None:
    ours, theirs = CONTEXT.Pipe()
    successor = Lease(tmp_path, heartbeat_s=0.02, patience_s=0.3)
    with started(hold, tmp_path, theirs) as process:
        assert ours.recv() is True
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        assert until_acquired(successor) > 0.2
        mine = successor.owner()
        assert mine is not None
        assert mine.pid == os.getpid()
        os.kill(process.pid, signal.SIGCONT)
        ours.send("release")
        assert ours.poll(PATIENCE_S)
        assert ours.recv() == "released"
        now = successor.owner()
        assert now is not None
        assert now.token == mine.token
        assert not Lease(tmp_path).acquire()
        wait_for(lambda: (successor.owner() or mine).beat > now.beat, "the successor's heart to beat on")
    successor.release()
    assert successor.owner() is None


def test_the_heartbeat_stops_when_the_lease_was_taken_over(tmp_path: Path) -> None:
    lease = Lease(tmp_path, heartbeat_s=0.01)
    assert lease.acquire()
    successor = write_owner(tmp_path, host="elsewhere", pid=1)
    time.sleep(0.1)
    assert lease.owner() == successor
    lease.release()
    assert lease.owner() == successor


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": "x"}', b"\xff"])
def test_an_invalid_lease_has_no_owner(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease.json").write_bytes(content)
    lease = Lease(tmp_path)
    assert lease.owner() is None
    assert lease.acquire()
    lease.release()


def race(folder: Path, turns: int) -> None:
    """Acquire the lease ``turns`` times; no other process may hold it meanwhile."""
    inside, log = folder / "inside", folder / "log"
    for _ in range(turns):
        lease = Lease(folder)
        until_acquired(lease)
        with lease:
            inside.touch(exist_ok=False)
            time.sleep(0.002)
            inside.unlink()
            with log.open("a") as file:
                file.write("x")


def test_processes_that_race_never_both_hold_it(tmp_path: Path) -> None:
    turns = 10
    with started(race, tmp_path, turns) as a, started(race, tmp_path, turns) as b, started(race, tmp_path, turns) as c:
        for process in (a, b, c):
            process.join(PATIENCE_S)
            assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == 3 * turns * "x"


def test_threads_that_race_never_both_hold_it(tmp_path: Path) -> None:
    turns, failures = 10, []

    def try_race() -> None:
        try:
            race(tmp_path, turns)
        except BaseException as error:  # noqa: BLE001  passed to the test
            failures.append(error)

    threads = [threading.Thread(target=try_race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not failures
    assert (tmp_path / "log").read_text() == 4 * turns * "x"


def test_a_dead_owner_has_one_successor_among_many(tmp_path: Path) -> None:
    write_owner(tmp_path, started="12345")
    leases = [Lease(tmp_path) for _ in range(6)]
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda lease=lease: answers.append(lease.acquire())) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 5 + [True]
    for lease in leases:
        lease.release()
    assert leases[0].owner() is None


def unreadable(monkeypatch: pytest.MonkeyPatch, number: int) -> threading.Event:
    """Whether ``lease.json`` cannot be opened: an event to set and clear."""
    away, opened = threading.Event(), os.open

    def failing(path: object, *arguments: int, **options: int) -> int:
        if away.is_set() and str(path).endswith("lease.json"):
            raise OSError(number, os.strerror(number))
        return opened(path, *arguments, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(os, "open", failing)
    return away


@pytest.mark.fault("lease-outage")
def test_an_owner_that_cannot_be_read_keeps_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_owner(tmp_path, host="elsewhere", pid=1)
    lease, away = Lease(tmp_path), unreadable(monkeypatch, errno.EIO)
    away.set()
    for ask in (lease.owner, lease.acquire):
        with pytest.raises(OSError, match="Input/output"):
            ask()


@pytest.mark.fault("lease-outage")
def test_the_minute_begins_anew_when_the_storage_has_erred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could not write heartbeats either."""
    owner = write_owner(tmp_path, host="elsewhere", pid=1)
    lease, away = Lease(tmp_path, patience_s=0.3), unreadable(monkeypatch, errno.ESTALE)
    monkeypatch.setattr(outages, "FIRST_PAUSE_S", 0.01)
    assert not lease.acquire()
    away.set()
    threading.Timer(0.5, away.clear).start()
    with StoragePatience(lambda text, errs: None).active():
        assert not lease.acquire()  # waits until the storage works again
        assert not away.is_set()
        write_owner(tmp_path, host="elsewhere", pid=1, token=owner.token, beat=1)
        assert not lease.acquire()
        assert 0.2 < until_acquired(lease) < 5
    lease.release()


@pytest.mark.fault("lease-outage")
def test_a_heart_that_could_not_beat_beats_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = unreadable(monkeypatch, errno.EIO)
    with Lease(tmp_path, heartbeat_s=0.01) as lease:
        assert lease.acquire()
        away.set()
        time.sleep(0.1)
        away.clear()
        assert not lease.lost
        before = lease.owner()
        assert before is not None
        wait_for(lambda: (lease.owner() or before).beat > before.beat, "a beat")
    assert not lease.lost


def test_a_process_that_is_hidden_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As /proc mounted with ``hidepid`` hides the processes of other users."""

    def hidden(pid: int) -> bytes:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", f"/proc/{pid}/stat")

    living, token = Owner.me(), new_token()
    dead = CONTEXT.Process(target=os.getpid)
    dead.start()
    dead.join()
    assert dead.pid is not None
    ended = token.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    monkeypatch.setattr(owners, "_stat_of", hidden)
    assert (living.surely_dead, has_ended(token)) == (False, False)
    assert (replace(living, pid=dead.pid).surely_dead, has_ended(ended)) == (True, True)

    def kill(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", kill)
    assert not living.surely_dead


def test_a_process_name_that_is_cut_within_a_character_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    living, real = Owner.me(), owners._stat_of
    monkeypatch.setattr(owners, "_stat_of", lambda pid: real(pid).replace(b"(", b"(\xc3"))
    assert not living.surely_dead


@pytest.mark.parametrize("numbers", [{"pid": 2**31}, {"pid": 0}, {"pid": -1}, {"beat": -1}, {"beat": 2**63}])
def test_an_owner_of_impossible_numbers_is_none(tmp_path: Path, numbers: dict[str, int]) -> None:
    """The kernel would be asked for its process."""
    with pytest.raises(ValueError, match="an owner is process"):
        Owner.read({**Owner.me().document(), **numbers})
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "lease.json").write_text(json.dumps({**Owner.me().document(), **numbers}))
    assert Lease(tmp_path / "lock").owner() is None
