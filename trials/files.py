"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import torch


def write(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, by temporary file, fsync and rename: a reader sees the old or the new whole.

    The folder itself is not synced: a rename that a power failure undoes leaves the old file, which is as good.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save(path: Path, content: object) -> None:
    """torch.save to ``path``, there whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write(path, buffer.getvalue())


def digest(content: bytes) -> str:
    """12 hex digits of the SHA-256: part of a committed file's name, so that the name tells whether it is whole."""
    return hashlib.sha256(content).hexdigest()[:12]


def set_aside(path: Path) -> Path:
    """Rename a damaged file to ``<name>.damaged`` (``.damaged-2``, …), so that nothing reads it and nothing is lost."""
    target, n = path.with_name(f"{path.name}.damaged"), 1
    while target.exists():
        n += 1
        target = path.with_name(f"{path.name}.damaged-{n}")
    path.rename(target)
    return target


def require_writable(folder: Path) -> None:
    """Make ``folder`` and prove that files can be written there.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe.{os.getpid()}"
    probe.write_bytes(b"")
    probe.unlink()
