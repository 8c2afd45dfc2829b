"""Disk cache of decoded images: one process decodes a data set, later ones map it into memory."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from trials.data.raw import Arrays
from trials.errors import DataError
from trials.system.account import name_account
from trials.system.kernel_lock import LACKING, FileLocked

FORMAT = 1  # version of the file format and of the decoding; raise it when either changes: old entries are then unused
WAITS_QUIETLY_S = 30.0
"""Seconds after which a process says that it waits for another one that reads the same data."""

_TAIL_BYTES = 4096
_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/sparsity-sweeper``, by default ``~/.cache/sparsity-sweeper``. May be deleted at any time."""
    name_account()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "sparsity-sweeper"


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, creating its folder and waiting for other processes; released if the holder dies.

    Raises:
        DataError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLocked(path)
    try:
        _acquire(lock)
    except OSError as error:
        if error.errno not in LACKING:
            raise
        raise DataError(
            f"the file system of {path.parent} has no locks (flock: {error.strerror}): mount it with locks (Lustre: -o "
            "flock), or set XDG_CACHE_HOME to a folder on another one"
        ) from None
    try:
        yield
    finally:
        lock.release()


def source_key(files: Sequence[Path], *facts: str) -> str:
    """Name of a cache entry: hash of ``facts`` and of each file's place, size, times, inode and end.

    The place is the path without links, the times are those of the last change of the content and of the file itself
    (``ctime``, which copying tools cannot set; two files that change at once may share it), and the end is the last
    4 KiB or, of a Parquet file, the whole footer (row counts, column statistics, class names). Data that are moved or
    copied are decoded again.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, *facts]).encode())
    for file in files:
        stat = file.stat()
        fact = [os.path.realpath(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        digest.update(json.dumps(fact).encode())
        with file.open("rb") as stream:
            digest.update(_end_of(stream, stat.st_size))
    return digest.hexdigest()[:24]


def _end_of(stream: BinaryIO, size: int) -> bytes:
    """The last 4 KiB of a file of ``size`` bytes, or a Parquet file's footer if that is longer."""
    stream.seek(max(0, size - _TAIL_BYTES))
    end = stream.read()
    length = int.from_bytes(end[-8:-4], "little") + 8  # the footer, its length and the magic word
    if end[-4:] != b"PAR1" or length <= len(end):
        return end
    stream.seek(max(0, size - length))
    return stream.read()


def cached(key: str, build: Callable[[], Arrays]) -> Arrays:
    """Return the arrays cached under ``key``; if absent or damaged, one process at a time builds them.

    If the cache cannot be written (read-only or full disk), the arrays are built each time, with a logged warning.
    """
    folder = cache_dir() / "decoded"
    found = _read(folder, key)
    if found is not None:
        return found
    lock = _lock(folder, key)
    if lock is None:
        return build()
    try:
        found = _read(folder, key)
        if found is not None:
            return found
        built = build()
        _write(folder, key, built)
        return _read(folder, key) or built
    finally:
        lock.release()


def _lock(folder: Path, key: str) -> FileLocked | None:
    """Acquire and return the lock of an entry; None, with a logged warning, if that is not possible."""
    lock = FileLocked(folder / f"{key}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock)
    except OSError as error:  # also on file systems without flock
        _log.warning("decoded images are not cached in %s: %s", folder, error)
        return None
    return lock


def _acquire(lock: FileLocked) -> None:
    """Wait for a lock without a limit, since a large data set takes hours to read; a long wait is a logged warning."""
    try:
        lock.acquire(WAITS_QUIETLY_S)
    except OSError as error:
        if error.errno != errno.ETIMEDOUT:
            raise
        _log.warning("waiting for the process that has locked %s: it reads or downloads the same data", lock.path)
        lock.acquire()


def _read(folder: Path, key: str) -> Arrays | None:
    """Read the entry, mapped copy-on-write so that processes share its pages; None if absent or damaged."""
    try:
        manifest = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        arrays = {name: _checked(folder / f"{key}.{name}.npy", crc) for name, crc in manifest["crc32"].items()}
        return Arrays(**arrays, class_count=manifest["class_count"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("the decoded images %s in %s are damaged and are built again: %s", key, folder, error)
        return None


def _checked(path: Path, crc: int) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    if zlib.crc32(array.data) != crc:
        raise ValueError(f"{path.name} does not have the checksum it was written with")
    return array


def _write(folder: Path, key: str, arrays: Arrays) -> None:
    """Write the entry, its manifest last: an entry without a manifest counts as absent."""
    named = {f.name: getattr(arrays, f.name) for f in fields(arrays) if f.name != "class_count"}
    manifest = {"crc32": {name: zlib.crc32(a.data) for name, a in named.items()}, "class_count": arrays.class_count}
    try:
        for name, array in named.items():
            with replacing(folder / f"{key}.{name}.npy") as stream:
                np.save(stream, array, allow_pickle=False)
        with replacing(folder / f"{key}.json") as stream:
            stream.write(json.dumps(manifest).encode())
    except OSError as error:
        _log.warning("decoded images are not cached in %s: %s", folder, error)


@contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """Open a binary stream whose content replaces ``path`` atomically at the end; after an error ``path`` is unchanged.

    Only the holder of the entry's lock may write, so one temporary name is enough; a killed writer's file is reused.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
