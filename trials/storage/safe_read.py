"""Read files of a storage in which others may write: regular files of a bounded size, and none through a link.

Everything below a sweep's folder, and below a shared trial's, is made by this project, which makes no links. A link
there was made by somebody else, and may lead out of the storage, so it is not followed wherever it leads. The storage,
a sweep's folder and the folder of the shared trials may themselves be links.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trials.errors import DamagedFile
from trials.storage.outages import patiently
from trials.storage.place import ObjectPath, Place

DOCUMENT_BYTES = 64 << 20
"""Most bytes of a JSON or YAML file: 100,000 trials need about 10 MB."""

ROW_BYTES = 4 << 30
"""Most bytes of a file of rows or of a table."""

CHECKPOINT_BYTES = 64 << 30
"""Most bytes of a checkpoint."""

LARGE_BYTES = 64 << 20
"""A file with more bytes is hashed piece by piece before it is read whole, if its hash is known."""

_PIECE_BYTES = 1 << 20

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link, which is not followed",
}


def read_plain(path: Place, most: int = DOCUMENT_BYTES, digest: str | None = None) -> bytes:
    """Return the content of a regular file, or of an object.

    It never waits for a writer, as reading a named pipe would, and never reads more than ``most`` bytes.

    Args:
        digest: the first digits of the SHA-256 that the content must have. A large file with another one is not held in
            memory, which it may fill; of a small one, and of an object, the caller checks the content.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: something else lies at its place (a link, a folder, a pipe, a device), or it is too large.
        OSError: the storage does not give it.
    """
    if isinstance(path, ObjectPath):
        return path.read_bytes(most)
    return patiently(lambda: _read(path, most, digest), path.parent)


def read_range(path: Place, offset: int, length: int) -> bytes:
    """Return some bytes of a regular file, or of an object, that is never replaced; fewer if it is shorter.

    Raises: as :func:`read_plain`.
    """
    if isinstance(path, ObjectPath):
        return path.read_range(offset, length)
    return patiently(lambda: _read_range(path, offset, length), path.parent)


def _hash_of(file: int) -> str:
    found, offset = hashlib.sha256(), 0
    while part := os.pread(file, _PIECE_BYTES, offset):
        found.update(part)
        offset += len(part)
    return found.hexdigest()


def _read_range(path: Path, offset: int, length: int) -> bytes:
    with _opened(path) as (file, _):
        found = bytearray()
        while len(found) < length:  # one call gives 2 GiB at most, or fewer bytes
            part = os.pread(file, length - len(found), offset + len(found))
            if not part:
                break
            if len(part) == length:
                return part
            found += part
        return bytes(found)


def _read(path: Path, most: int, digest: str | None) -> bytes:
    with _opened(path) as (file, size):
        if size > most:
            raise DamagedFile(f"{path} has {size} bytes, but may have at most {most}")
        if digest is not None and size > LARGE_BYTES and not _hash_of(file).startswith(digest):
            raise DamagedFile(f"{path} is damaged: its content does not match its hash")
        return io.FileIO(file, closefd=False).readall()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """A regular file, opened, and its size."""
    try:
        opened = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV) and (kind := _kind(path)) is not None:
            raise DamagedFile(f"{path} is {kind}") from None
        if error.errno == errno.ELOOP:
            raise DamagedFile(f"{path} cannot be read: a folder around it is a link that leads to itself") from None
        raise
    try:
        there = os.fstat(opened)
        if not stat.S_ISREG(there.st_mode):
            raise DamagedFile(f"{path} is {_KINDS.get(stat.S_IFMT(there.st_mode), 'no file')}")
        yield opened, there.st_size
    finally:
        os.close(opened)


def _kind(path: Path) -> str | None:
    """What lies in a file's place; None if that is a file, or not known."""
    with suppress(OSError):
        return _KINDS.get(stat.S_IFMT(path.lstat().st_mode))
    return None


def require_own_folder(path: Place) -> None:
    """Check that a folder is one, if it is there.

    Raises:
        DamagedFile: something else lies there, such as a file or a link.
    """
    if isinstance(path, ObjectPath):
        return
    try:
        mode = patiently(lambda: os.lstat(path).st_mode, path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISDIR(mode):
        raise DamagedFile(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'a file')}, but must be a folder")
