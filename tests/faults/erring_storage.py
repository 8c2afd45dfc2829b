"""A storage that errs: calls of the operating system on files below one folder raise an error, from the n-th on.

Calls are counted in the thread that entered the block; others, such as a lease's heartbeat, go on undisturbed.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trials.storage import outages

READING = ("open", "read", "stat", "lstat", "listdir", "scandir")
WRITING = ("create", "write", "fsync", "mkdir", "unlink", "rmdir", "rename", "replace", "link")
LOCKING = ("flock",)

KINDS: dict[int, tuple[str, ...]] = {
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN), (*READING, *WRITING, *LOCKING)),
    **dict.fromkeys((errno.EHOSTDOWN, errno.EACCES, errno.EREMOTEIO), (*READING, *WRITING)),
    errno.EROFS: WRITING,
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), ("create", "write", "fsync", "mkdir", "rename")),
    errno.ENOLCK: LOCKING,
}
"""Which calls fail in which way."""


class ErringStorage:
    """Counts the calls on files below a folder, and lets some of them fail.

    Attributes:
        calls: the name of every call so far.
        refused: those that have failed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.abspath(folder)  # noqa: PTH100  a Path would call what is patched
        self.calls: list[str] = []
        self.refused: list[str] = []
        self._thread = threading.get_ident()
        self._code, self._from, self._times, self._seconds = 0, 0, 0, 0.0
        self._until: float | None = None
        self._busy = False

    def fail(self, code: int, *, at: int = 1, times: int = 10**9, seconds: float = 0.0) -> None:
        """Let calls fail from the ``at``-th on that can fail so: so many of them, or for so many seconds."""
        self._code, self._from, self._times, self._seconds, self._until = code, at, times, seconds, None

    def mend(self) -> None:
        """Let nothing fail from now on."""
        self._code = 0

    def meet(self, call: str, path: Any) -> None:
        """Count a call, and raise OSError if it fails."""
        if self._busy or threading.get_ident() != self._thread or not self._is_below(path):
            return
        self.calls.append(call)
        if not self._code or len(self.calls) < self._from or call not in KINDS[self._code] or self._is_over():
            return
        self.refused.append(call)
        raise OSError(self._code, os.strerror(self._code), str(path))

    def _is_over(self) -> bool:
        if self._seconds:
            self._until = self._until or time.monotonic() + self._seconds
            return time.monotonic() > self._until
        return len(self.refused) >= self._times

    def _is_below(self, path: Any) -> bool:
        if isinstance(path, int):
            self._busy = True
            try:
                path = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115
            except OSError:
                return False
            finally:
                self._busy = False
        if not isinstance(path, (str, os.PathLike)):
            return False
        found = os.path.abspath(os.fspath(path))  # noqa: PTH100
        return found == self.folder or found.startswith(f"{self.folder}/")


class _File:
    """An open file whose reads and writes may fail."""

    def __init__(self, file: Any, path: Any, storage: ErringStorage) -> None:
        self._file, self._path, self._storage = file, path, storage

    def read(self, *arguments: Any) -> Any:
        self._storage.meet("read", self._path)
        return self._file.read(*arguments)

    def readall(self) -> bytes:
        self._storage.meet("read", self._path)
        content: bytes = self._file.readall()
        return content

    def write(self, content: Any) -> Any:
        self._storage.meet("write", self._path)
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[Any]:
        self._storage.meet("read", self._path)
        return iter(self._file)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *what: object) -> None:
        self._file.close()


@contextmanager
def erring(folder: Path) -> Iterator[ErringStorage]:
    """A storage below ``folder`` that errs as it is told; pauses between tries are short."""
    storage = ErringStorage(folder)

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any = ".", *arguments: Any, **options: Any) -> Any:
            storage.meet(name, path)
            return call(path, *arguments, **options)

        return called

    def opened(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if not storage._is_below(path) or isinstance(path, int):
                return call(path, mode, *arguments, **options)
            storage.meet("create" if set(mode) & set("wax") else "open", path)
            return _File(call(path, mode, *arguments, **options), path, storage)

        return called

    def opened_by_number(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        storage.meet("create" if flags & os.O_CREAT else "open", path)
        return real_open(path, flags, *arguments, **options)

    def file_of(path: Any, *arguments: Any, **options: Any) -> Any:
        return _File(real_file(path, *arguments, **options), path, storage)

    real_open, real_file = os.open, io.FileIO
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stat", "lstat", "listdir", "scandir", "mkdir", "unlink", "rmdir", "rename", "replace", "link"):
            patch.setattr(os, name, wrapped(name, getattr(os, name)))
        patch.setattr(os, "fsync", wrapped("fsync", os.fsync))
        patch.setattr(os, "pread", wrapped("read", os.pread))
        patch.setattr(io, "FileIO", file_of)
        patch.setattr(os, "open", opened_by_number)
        patch.setattr(fcntl, "flock", wrapped("flock", fcntl.flock))
        patch.setattr(io, "open", opened(io.open))
        patch.setattr(builtins, "open", opened(builtins.open))
        patch.setattr(outages, "FIRST_PAUSE_S", 0.001)
        patch.setattr(outages, "LONGEST_PAUSE_S", 0.01)
        yield storage
