"""Files that are there whole or not at all, in whatever place."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import uuid
from pathlib import Path

from trials.storage.place import ObjectPath, Place


def write(path: Place, content: bytes) -> None:
    """Replace ``path`` by ``content``, by temporary file, fsync and rename: a reader sees the old or the new whole.

    An object is replaced by one PUT. The folder itself is not synced: a rename that a power failure undoes leaves the
    old file, which is as good.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # half a file takes room where there is none
        raise


def save(path: Path, content: object) -> None:
    """torch.save to ``path``, there whole or not at all."""
    import torch  # not for those who only read

    buffer = io.BytesIO()
    torch.save(content, buffer)
    write(path, buffer.getvalue())


def digest(content: bytes) -> str:
    """12 hex digits of the SHA-256: part of a committed file's name, so that the name tells whether it is whole."""
    return hashlib.sha256(content).hexdigest()[:12]


def names(folder: Place) -> list[str]:
    """What lies in a folder, in alphabetical order; nothing where there is no folder."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_leftovers(folder: Place) -> None:
    """Delete what writers that were killed have left half written; an object store keeps nothing of the kind."""
    if isinstance(folder, Path):
        for leftover in folder.glob("**/.*.tmp"):
            leftover.unlink(missing_ok=True)


def set_aside(path: Place) -> Place:
    """Rename a damaged file to ``<name>.damaged`` (``.damaged-2``, …), so that nothing reads it and nothing is lost."""
    target, n = path.with_name(f"{path.name}.damaged"), 1
    while target.exists():
        n += 1
        target = path.with_name(f"{path.name}.damaged-{n}")
    path.rename(target)  # type: ignore[arg-type]  # both are of one kind
    return target


def is_full(error: OSError) -> bool:
    """Whether a write failed because there is no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def require_writable(folder: Place) -> None:
    """Make ``folder`` and prove that files can be written there, and read back.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = uuid.uuid4().hex.encode()
    probe = folder / f".probe.{content.decode()[:8]}"
    probe.write_bytes(content)
    found = probe.read_bytes()
    probe.unlink()
    if found != content:
        raise OSError(f"{probe} reads {found!r} where {content!r} was written")
