"""Atomic file writes, listing and repair helpers, on a path or in an object store."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
import uuid
from pathlib import Path

from trials.storage.place import ObjectPath, Place


def write(path: Place, content: bytes) -> None:
    """Replace ``path`` atomically (temporary file, fsync, rename): a reader sees either the old or the new content.

    An object is replaced by one PUT. The folder itself is not synced: if a power failure undoes the rename, the old
    file remains, which is equally consistent.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            share(file.fileno(), path.parent)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # the disk may be full: free the space of the partial file
        raise


def share(file: int, folder: Path) -> None:
    """Give the group of a file or folder that is open as ``file`` the rights that the same group has in ``folder``.

    A folder that the group may write is meant to be used by several people, whatever umask each of them has. Rights are
    only added, and only by the owner; file systems without them are left alone.
    """
    with contextlib.suppress(OSError):
        mine, around = os.fstat(file), folder.stat()
        if mine.st_gid != around.st_gid:
            return
        mode = mine.st_mode
        rights = around.st_mode & (stat.S_IRWXG if stat.S_ISDIR(mode) else stat.S_IRGRP | stat.S_IWGRP)
        if rights & ~mode:
            os.fchmod(file, stat.S_IMODE(mode) | rights)


def make_folder(path: Place) -> None:
    """Make a folder of a sweep, and those around it, unless they are there; each is shared as the one around it is."""
    if isinstance(path, ObjectPath) or path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        with contextlib.suppress(OSError):
            opened = os.open(folder, os.O_RDONLY)
            try:
                share(opened, folder.parent)
            finally:
                os.close(opened)


def share_below(folder: Path) -> None:
    """Share what others than this project have made in a folder, each as the folder around it is."""
    for around, folders, made in os.walk(folder):
        for name in (*folders, *made):
            with contextlib.suppress(OSError):
                opened = os.open(Path(around, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    share(opened, Path(around))
                finally:
                    os.close(opened)


def create_shared(path: Path) -> None:
    """Create an empty file that is to be opened by several people, if it is not there, with the rights of its folder.

    Other files are replaced by a rename, which the folder alone permits; one that is locked must be writable itself.
    """
    with contextlib.suppress(FileExistsError):
        created = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            share(created, path.parent)
        finally:
            os.close(created)


def save(path: Path, content: object) -> None:
    """Write ``content`` with torch.save to ``path``, atomically."""
    import torch  # here, so that reading results does not import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    write(path, buffer.getvalue())


def digest(content: bytes) -> str:
    """Return 12 hex digits of the SHA-256; committed files carry it in their names, so that damage can be detected."""
    return hashlib.sha256(content).hexdigest()[:12]


def names(folder: Place) -> list[str]:
    """Names in a folder, sorted; empty if the folder does not exist."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_leftovers(folder: Place) -> None:
    """Delete temporary files of writers that were killed; an object store has none."""
    if isinstance(folder, Path):
        for leftover in folder.glob("**/.*.tmp"):
            leftover.unlink(missing_ok=True)


def set_aside(path: Place) -> Place:
    """Rename a damaged file to ``<name>.damaged`` (``.damaged-2``, …): it is kept, but no longer read."""
    target, n = path.with_name(f"{path.name}.damaged"), 1
    while os.path.lexists(target) if isinstance(target, Path) else target.exists():
        n += 1
        target = path.with_name(f"{path.name}.damaged-{n}")
    path.rename(target)  # type: ignore[arg-type]  # both are Paths or both ObjectPaths
    return target


def is_full(error: OSError) -> bool:
    """Whether a write failed because the disk or a quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def require_writable(folder: Place) -> None:
    """Create ``folder`` and check that a file can be written there and read back.

    Raises:
        OSError: writing fails, or the file reads back differently.
    """
    make_folder(folder)
    content = uuid.uuid4().hex.encode()
    probe = folder / f".probe.{content.decode()[:8]}"
    probe.write_bytes(content)
    found = probe.read_bytes()
    probe.unlink()
    if found != content:
        raise OSError(f"{probe} reads {found!r} where {content!r} was written")
