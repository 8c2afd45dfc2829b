"""Processes that read the same data wait for one another, and say so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from trials.data import cache
from trials.data.raw import Arrays
from trials.system.kernel_lock import FileLocked

ARRAYS = Arrays(*(np.zeros((2, 1, 1, 1), np.uint8), np.zeros(2, np.int64)) * 2, class_count=2)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[Path]:
    with cache.one_at_a_time(folder / "decoded" / "key.lock"):
        yield folder


@contextmanager
def cached(folder: Path) -> Iterator[Path]:
    assert cache.cached("key", lambda: ARRAYS).class_count == 2
    yield folder


@pytest.mark.parametrize("waits", [one_at_a_time, cached])
def test_a_long_wait_is_said_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    waits: Callable[[Path], AbstractContextManager[Path]],
) -> None:  # fmt: skip
    monkeypatch.setattr(cache, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(cache, "WAITS_QUIETLY_S", 0.05)
    (tmp_path / "decoded").mkdir()
    other, done = FileLocked(tmp_path / "decoded" / "key.lock"), threading.Event()

    def wait() -> None:
        with waits(tmp_path):
            done.set()

    other.acquire()
    thread = threading.Thread(target=wait)
    with caplog.at_level(logging.WARNING):
        thread.start()
        assert not done.wait(0.5)
        other.release()
        thread.join(20)
    assert done.is_set()
    assert [record.getMessage() for record in caplog.records] == [
        f"waiting for the process that has locked {other.path}: it reads or downloads the same data"
    ]


def test_a_short_wait_is_not_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache, "cache_dir", lambda: tmp_path)
    (tmp_path / "decoded").mkdir()
    for waits in (cached, one_at_a_time):
        other = FileLocked(tmp_path / "decoded" / "key.lock")
        other.acquire()
        threading.Timer(0.2, other.release).start()
        with caplog.at_level(logging.WARNING), waits(tmp_path):
            assert other._file is None
    assert not caplog.records
