"""Atomic file writes, listing and repair helpers, on a path or in an object store."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from trials.storage.leases.owner import has_ended, is_token, new_token
from trials.storage.outages import FULL, impatient, patiently
from trials.storage.place import ObjectPath, Place
from trials.storage.stored_path import StoredPath

_TEMPORARY = ".tmp"


def write(path: Place, content: bytes) -> None:
    """Replace ``path`` atomically (temporary file, fsync, rename): a reader sees either the old or the new content.

    In a storage, a folder in the file's place is set aside. An object is replaced by one PUT.

    The folder itself is not synced: if a power failure undoes the rename, the old
    file remains, which is equally consistent.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
    else:
        temporary = temporary_of(Path(path), new_token())  # the same for each try, so that none is left behind
        own = isinstance(path, StoredPath)
        patiently(lambda: _write(temporary, Path(path), content, own=own), path.parent)


def temporary_of(path: Path, token: str) -> Path:
    """What a file is written to, before it is renamed to ``path``."""
    return path.with_name(f".{path.name}.{token}{_TEMPORARY}")


def _write(temporary: Path, path: Path, content: bytes, *, own: bool) -> None:
    try:
        _replace(temporary, path, content, own=own)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        _replace(
            temporary, path, content, own=own
        )  # this process was frozen for so long that its file was taken for a leftover


def _replace(temporary: Path, path: Path, content: bytes, *, own: bool) -> None:
    try:
        with temporary.open("wb") as file:
            file.write(content)
            share(file.fileno(), path.parent)
            file.flush()
            os.fsync(file.fileno())
        try:
            temporary.replace(path)
        except IsADirectoryError:  # somebody has put a folder in the file's place
            if not own:  # outside of a storage, it is that person's
                raise
            set_aside(path)
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # which would hide why
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
    else:
        patiently(lambda: _make(Path(path)), path)


def _make(path: Path) -> None:
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


LEFTOVER_S = 3600.0
"""Age from which a temporary file is a leftover: its writer would have lost any lease long ago, and waits no longer."""


def remove_leftovers(folder: Place, name: str | None = None) -> None:
    """Delete temporary files, and folders, that writers have left that were killed; an object store has none.

    Their writer was a process of this machine that has ended, or they are older than :data:`LEFTOVER_S` by the clock of
    the storage: the writer of a younger one may live on another machine. Where the storage errs, they stay.

    Args:
        name: only those of this file or folder in ``folder`` itself; by default all below ``folder``.
    """
    if not isinstance(folder, Path):
        return
    with contextlib.suppress(OSError), impatient():
        found = list(_temporary(folder) if name is None else Path(folder).glob(f".{glob.escape(name)}.*{_TEMPORARY}"))
        if not found:
            return
        now = _now_of(folder)
        for leftover in found:
            with contextlib.suppress(OSError):
                if not _is_dead(leftover) and now - leftover.lstat().st_mtime < LEFTOVER_S:
                    continue
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()


def _is_dead(leftover: Path) -> bool:
    """Whether the writer of a temporary file is known to have ended; older versions gave the number of a process."""
    token = _token_of(leftover.name)
    return token.isdecimal() or has_ended(token)


def _token_of(name: str) -> str:
    return name.removesuffix(_TEMPORARY).rpartition(".")[2]


def _temporary(folder: Path) -> Iterator[Path]:
    """The temporary files and folders below a folder. Links are not followed."""
    for around, folders, names_in in os.walk(folder):
        for found in names_in:
            if found.endswith(_TEMPORARY) and found.startswith("."):
                yield Path(around, found)
        for found in folders:  # others than this project make hidden folders, too
            if found.endswith(_TEMPORARY) and found.startswith(".") and is_token(_token_of(found)):
                yield Path(around, found)


def _now_of(folder: Path) -> float:
    """The time by the clock that gives files in ``folder`` their times, as that of a file server."""
    probe = temporary_of(Path(folder, "probe"), new_token())
    try:
        with probe.open("xb") as file:
            return os.fstat(file.fileno()).st_mtime
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def set_aside(path: Place) -> Place:
    """Rename a damaged file to ``<name>.damaged`` (``.damaged-2``, …): it is kept, but no longer read."""
    target, n = path.with_name(f"{path.name}.damaged"), 1
    while _is_there(target):
        n += 1
        target = path.with_name(f"{path.name}.damaged-{n}")
    path.rename(target)  # type: ignore[arg-type]  # both are Paths or both ObjectPaths
    return target


def _is_there(path: Place) -> bool:
    if isinstance(path, ObjectPath):
        return path.exists()
    try:
        patiently(lambda: os.lstat(path), path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_full(error: OSError) -> bool:
    """Whether a write failed because the disk or a quota is full."""
    return error.errno in FULL


def require_writable(folder: Place) -> None:
    """Create ``folder`` and check that a file can be written there and read back.

    Raises:
        OSError: writing fails, or the file reads back differently.
    """
    make_folder(folder)
    content = uuid.uuid4().hex.encode()
    probe = folder / temporary_of(Path("probe"), new_token()).name  # a leftover, if this process is killed here
    try:
        probe.write_bytes(content)
        found = probe.read_bytes()
        probe.unlink(missing_ok=True)
    except BaseException:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        raise
    if found != content:
        raise OSError(f"{probe} reads {found!r} where {content!r} was written")
