"""Kernel locks exclude, end with their holder, and are never replaced by something else."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.trials.processes import CONTEXT, PATIENCE_S, started
from trials.data.cache import cached, one_at_a_time
from trials.data.raw import Arrays
from trials.errors import DataError, Preempted, StorageError, UserError
from trials.storage.leases import lease_store
from trials.storage.leases.lease import Lease
from trials.storage.leases.lease_store import GUARD, require_locks
from trials.storage.outages import StoragePatience
from trials.system.kernel_lock import FileLocked, locked


def hold(path: Path, pipe: Connection) -> None:
    with locked(path):
        pipe.send("held")
        pipe.recv()


def test_a_lock_excludes_threads_and_ends_with_its_process(tmp_path: Path) -> None:
    path, ours_theirs = tmp_path / "lock", CONTEXT.Pipe()
    ours, theirs = ours_theirs
    with started(hold, path, theirs) as process:
        assert ours.recv() == "held"
        taken = threading.Event()

        def take() -> None:
            with locked(path):
                taken.set()

        threading.Thread(target=take, daemon=True).start()
        time.sleep(0.1)
        assert not taken.is_set()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        assert taken.wait(PATIENCE_S)
    FileLocked(path).release()  # holds nothing
    assert path.exists()


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.fault("no-locks")
@pytest.mark.usefixtures("without_locks")
def test_a_file_system_without_locks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no locks \(flock: .*mount Lustre with -o flock.*s3://BUCKET") as refused:
        require_locks(tmp_path / "lock")
    assert "\n" not in str(refused.value)
    with pytest.raises((OSError, StorageError), match=r"has no locks|No locks"):
        Lease(tmp_path / "lock").acquire()
    assert not (tmp_path / "lock" / "lease.json").exists()
    with pytest.raises(DataError, match="has no locks"), one_at_a_time(tmp_path / "cache" / "x.lock"):
        pass


def test_the_check_for_locks_leaves_nothing_behind(tmp_path: Path) -> None:
    require_locks(tmp_path / "stages")
    assert list((tmp_path / "stages").iterdir()) == []


@pytest.mark.fault("no-locks")
@pytest.mark.usefixtures("without_locks")
def test_decoded_images_are_not_cached_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    empty = Arrays(*[None] * (len(Arrays.__dataclass_fields__) - 1), class_count=2)  # type: ignore[arg-type]
    assert cached("key", lambda: empty) is empty
    assert "decoded images are not cached" in caplog.text
    assert not list(tmp_path.rglob("*.npy"))


def test_a_folder_of_shared_trials_holds_nothing_else_after_the_check(tmp_path: Path) -> None:
    require_locks(tmp_path / "stages")
    assert list((tmp_path / "stages").iterdir()) == []


@pytest.mark.fault("storage-errs")
def test_a_lease_whose_lock_is_held_for_long_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_store, "GUARD_S", 0.05)
    said: list[str] = []
    with locked(tmp_path / GUARD):
        with pytest.raises(TimeoutError, match="locked by another process"):
            Lease(tmp_path).acquire()
        patience = StoragePatience(lambda text, errs: said.append(text), lambda: bool(said))
        with patience.active(), pytest.raises(Preempted):
            Lease(tmp_path).acquire()
    assert said[0].startswith("the storage does not work (ETIMEDOUT: locked by another process, in ")
    lease = Lease(tmp_path)
    assert lease.acquire()
    lease.release()


def test_a_lock_that_is_refused_is_no_lock_that_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(PermissionError):
        FileLocked(tmp_path / "lock").acquire(10)
