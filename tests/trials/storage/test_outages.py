"""Which errors are the storage's, and how calls wait for it."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trials.processes import PATIENCE_S
from trials.errors import DamagedFile, Preempted, StorageError, UserError
from trials.storage import outages
from trials.storage.outages import (
    StoragePatience,
    errs,
    impatient,
    in_this_thread,
    is_by_hand,
    patiently,
    refused_at_start,
)
from trials.storage.place import ObjectPath, as_stored, each, place
from trials.storage.stored_path import StoredPath


class Said:
    """Lines, with whether the storage erred."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bool]] = []

    def __call__(self, text: str, errs: bool) -> None:
        self.lines.append((text, errs))


def failing(times: int, code: int = errno.EIO) -> Callable[[], str]:
    left = [times]

    def act() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(code, os.strerror(code))
        return "done"

    return act


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(outages, "LONGEST_PAUSE_S", 0.004)


@pytest.mark.parametrize(
    "error",
    [
        *(
            OSError(code, "")
            for code in (errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.EFBIG, errno.ENOLCK)
        ),
        *(OSError(code, "") for code in (errno.EDQUOT, errno.ENOSPC, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)),
        ConnectionResetError(errno.ECONNRESET, ""),
        OSError("When reading information: AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"),
        OSError("AWS Error UNKNOWN (HTTP status 503) during PutObject operation: Unable to parse ExceptionName"),
        OSError("s3://b/x changes faster than it can be read"),
    ],
    ids=str,
)
def test_errors_of_a_storage(error: OSError) -> None:
    assert errs(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, ""),
        NotADirectoryError(errno.ENOTDIR, ""),
        IsADirectoryError(errno.EISDIR, ""),
        OSError(errno.ENAMETOOLONG, ""),
        OSError(errno.EMFILE, ""),
        OSError(errno.ENOSYS, ""),
        OSError(errno.ENOMEM, ""),
        OSError("cannot identify image file"),
        MemoryError(),
        ValueError("AWS Error"),
    ],
    ids=repr,
)
def test_errors_that_are_not_the_storages(error: BaseException) -> None:
    assert not errs(error)


def test_what_a_person_must_mend() -> None:
    assert is_by_hand(OSError(errno.EROFS, ""))
    assert is_by_hand(OSError("AWS Error ACCESS_DENIED during PutObject operation"))
    assert is_by_hand(OSError("AWS Error UNKNOWN (HTTP status 400): Unable to parse ExceptionName: ExpiredToken"))
    assert is_by_hand(OSError("AWS Error UNKNOWN (HTTP status 301) during HeadBucket operation: No response body."))
    assert is_by_hand(OSError("AWS Error UNKNOWN during ListObjectsV2 operation: PermanentRedirect"))
    assert is_by_hand(OSError("AWS Error REQUEST_TIME_TOO_SKEWED during PutObject operation"))
    assert not is_by_hand(OSError(errno.EIO, ""))
    assert not is_by_hand(OSError("AWS Error UNKNOWN (HTTP status 503)"))


def test_a_call_is_repeated_and_both_lines_are_said() -> None:
    said = Said()
    with StoragePatience(said).active():
        assert patiently(failing(5), "/results") == "done"
        assert patiently(failing(0), "/results") == "done"
    (first, away), (again, back) = said.lines
    assert (away, back) == (True, False)
    assert first == (
        "the storage does not work (EIO: Input/output error, in /results): waiting until it does, for 600 s at most"
    )
    assert again.startswith("the storage works again, after 0.")


def test_without_a_patience_errors_are_raised_at_once() -> None:
    with pytest.raises(OSError, match="Input/output"):
        patiently(failing(1), "")
    with StoragePatience(Said()).active(), impatient(), pytest.raises(OSError, match="Input/output"):
        patiently(failing(1), "")


def test_a_call_within_a_call_does_not_wait_by_itself() -> None:
    said, inner = Said(), failing(2)
    with StoragePatience(said).active():
        assert patiently(lambda: patiently(inner, "inner"), "outer") == "done"
    assert "in outer" in said.lines[0][0]


def test_pauses_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    with StoragePatience(Said()).active():
        patiently(failing(6), "")
    assert slept == pytest.approx([0.001, 0.002, 0.004, 0.004, 0.004, 0.004])


def test_it_gives_up_after_its_limit_and_then_at_once() -> None:
    said = Said()
    patience = StoragePatience(said, limit_s=0.02)
    began = time.monotonic()
    with patience.active():
        with pytest.raises(StorageError, match=r"has not worked for 0 s \(EROFS.*in /r\).*same command goes on"):
            patiently(failing(10**6, errno.EROFS), "/r")
        assert time.monotonic() - began >= 0.02
        tries: list[int] = []

        def act() -> None:
            tries.append(1)
            raise OSError(errno.EIO, "")

        with pytest.raises(StorageError, match="EROFS"):
            patiently(act, "/r")
    assert len(tries) == 1
    assert [away for _, away in said.lines] == [True]
    assert not issubclass(StorageError, OSError)


def test_a_request_to_stop_is_obeyed_while_it_waits() -> None:
    with StoragePatience(Said(), lambda: True).active(), pytest.raises(Preempted):
        patiently(failing(10**6), "")


def test_an_answer_of_another_kind_ends_an_outage() -> None:
    said, answers = Said(), [errno.EIO, errno.ENOENT]

    def act() -> None:
        code = answers.pop(0)
        raise OSError(code, os.strerror(code))

    with StoragePatience(said).active(), pytest.raises(FileNotFoundError):
        patiently(act, "")
    assert [away for _, away in said.lines] == [True, False]


def test_a_storage_that_errs_again_and_again_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said()
    with StoragePatience(said).active():
        for _ in range(20):
            patiently(failing(1), "")
        assert len(said.lines) == 2
        monkeypatch.setattr(outages, "LONG_S", 0.0)
        patiently(failing(2), "")
    assert [away for _, away in said.lines] == [True, False, True, False]


def test_before_it_begins_a_run_is_refused_what_a_person_must_mend() -> None:
    patience = StoragePatience(Said(), starting=True)
    with patience.active():
        assert patiently(failing(2), "") == "done"
        match = r"the storage /s cannot be used \(EACCES: Permission denied.*give another"
        with pytest.raises(UserError, match=match), refused_at_start("/s"):
            patiently(failing(2, errno.EACCES), "")
        with pytest.raises(UserError, match="no room to write"), refused_at_start("/s"):
            patiently(failing(2, errno.EDQUOT), "")
        outages.has_begun()
        assert patiently(failing(2, errno.EACCES), "") == "done"


def test_threads_wait_as_the_one_that_started_them(tmp_path: Path) -> None:
    act = failing(3)
    with StoragePatience(Said()).active():
        carried = in_this_thread(lambda: False)(lambda _: patiently(act, ""))
    assert carried(None) == "done"
    assert each(str, [1], tmp_path) == ["1"]


@pytest.mark.fault("driver-signals")
def test_a_signal_does_not_wait_for_threads_that_wait_for_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, waiting = threading.Event(), threading.Event()

    def request(item: int) -> None:
        if item == 0:
            assert waiting.wait(PATIENCE_S)
            raise KeyboardInterrupt  # as a signal in the thread that waits for the answers
        waiting.set()
        try:
            patiently(failing(10**9), "s3://bucket/x")
        except Preempted:
            ended.set()

    with StoragePatience(Said()).active(), pytest.raises(KeyboardInterrupt):
        each(request, range(2), ObjectPath("bucket/x"))
    assert ended.wait(PATIENCE_S)


def test_where_a_request_fails_the_others_end_before_the_error_is_raised() -> None:
    ended: list[int] = []
    before = set(threading.enumerate())

    def request(item: int) -> None:
        if item == 0:
            raise DamagedFile("it is damaged")
        try:
            patiently(failing(10**9), "s3://bucket/x")
        finally:
            ended.append(item)

    with StoragePatience(Said()).active(), pytest.raises(DamagedFile):
        each(request, range(3), ObjectPath("bucket/x"))
    assert len(ended) <= 2
    assert set(threading.enumerate()) <= before


def test_a_stored_path_is_the_path(tmp_path: Path) -> None:
    path = as_stored(tmp_path)
    assert isinstance(path, StoredPath)
    assert path == tmp_path
    assert hash(path) == hash(tmp_path)
    assert isinstance(path / "a" / "b", StoredPath)
    assert isinstance((path / "a").parent, StoredPath)
    assert isinstance(place(str(tmp_path)), StoredPath)
    assert pickle.loads(pickle.dumps(path)) == path
    assert sorted(path.iterdir()) == []
    file = path / "file"
    file.write_text("x")
    assert (file.exists(), file.is_file(), file.is_dir(), path.is_dir()) == (True, True, False, True)
    assert (file / "below").exists() is False
    assert [type(found) for found in path.iterdir()] == [StoredPath]
    assert file.rename(path / "other") == tmp_path / "other"
    (path / "other").unlink()
    (path / "other").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (path / "other").unlink()


@pytest.mark.parametrize("call", ["unlink", "rename"])
def test_a_call_that_took_effect_and_was_reported_as_failed_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file, real, failed = StoredPath(tmp_path / "file"), getattr(os, call), [False]
    file.write_text("x")

    def late(*arguments: object, **options: object) -> None:
        real(*arguments, **options)
        if not failed[0]:
            failed[0] = True
            raise OSError(errno.ETIMEDOUT, "timed out")

    monkeypatch.setattr(os, call, late)
    with StoragePatience(Said()).active():
        file.unlink() if call == "unlink" else file.rename(tmp_path / "new")
    assert not file.exists()
    assert (tmp_path / "new").exists() == (call == "rename")
