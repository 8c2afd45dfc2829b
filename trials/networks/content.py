"""Read and hash files that others name: their content, or a clear error."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trials.called import trial_command
from trials.errors import UserError
from trials.networks.formats import printable
from trials.storage.packed.reading import is_trial
from trials.storage.place import Place

_CHUNK = 1 << 22


def read_file(where: Place, what: str) -> bytes:
    """Return a file's content; ``what`` begins the message if it cannot be read.

    Raises:
        UserError: it is missing, no file, or cannot be read.
    """
    try:
        _require_file(where, what)
        return where.read_bytes()
    except OSError as error:
        raise _unreadable(what, error) from None


def digest_of_file(where: Place, what: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file; ``what`` begins the message if it cannot be read.

    Raises:
        UserError: it is missing, no file, or cannot be read.
    """
    if not isinstance(where, Path):
        return content_digest(read_file(where, what))
    found = hashlib.sha256()
    try:
        _require_file(where, what)
        with where.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                found.update(chunk)
    except OSError as error:
        raise _unreadable(what, error) from None
    return found.hexdigest()[:16]


def content_digest(content: bytes) -> str:
    """The first 16 hex digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def _require_file(where: Place, what: str) -> None:
    """Raises UserError if something lies at ``where`` that is no file, so that reading a pipe does not wait."""
    trial = is_trial(where)
    if trial or where.is_dir():
        kind, way = "a folder", "name a file"
        if trial:
            kind, way = (
                "the folder of a trial",
                f"name the FILE of {trial_command()} export {printable(where)} --to FILE",
            )
        raise UserError(f"{what}, but must be a file of weights, and that is {kind}: {way}")
    if where.exists() and not where.is_file():
        raise UserError(f"{what}, but must be a file of weights, and that is no regular file: name a file")


def _unreadable(what: str, error: OSError) -> UserError:
    reason = "there is none" if isinstance(error, FileNotFoundError) else reason_of(error)
    return UserError(f"{what}, but must be a file that can be read ({reason}): give the path of one")


def reason_of(error: OSError) -> str:
    return error.strerror or (str(error).strip().splitlines() or [type(error).__name__])[0]
