"""The file of Ray's token, which every client must show: only its owner can read it, from its first moment.

Ray 2.60 writes it with the rights that the umask leaves, mostly 644. A user who reads it can run code as its owner.
"""

from __future__ import annotations

import os
import secrets
import stat
import uuid
from contextlib import suppress
from pathlib import Path

from ray._private.authentication import authentication_token_setup

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_token() -> None:
    """Make the token of a Ray that is started here, in ``~/.ray/auth_token``, unless there is one by then.

    Where there is no home, or none that can be written (as in containers), the environment of this process and of the
    Ray that it starts holds the token, and no file does.
    """
    token = secrets.token_hex(32)
    try:
        path = Path.home() / ".ray" / "auth_token"
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".auth_token.{uuid.uuid4().hex}")
        try:
            file = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "w") as stream:
                stream.write(token)
                stream.flush()
                os.fsync(file)
            with suppress(FileExistsError):  # another process was faster
                _link(new, path)
        finally:
            new.unlink(missing_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: Python finds no home
        os.environ["RAY_AUTH_TOKEN"] = token


def _link(new: Path, path: Path) -> None:
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        new.rename(path)


def make_private_tokens() -> None:
    """Let Ray make tokens by :func:`make_token` in this process."""
    authentication_token_setup.generate_and_save_token = make_token


def narrowed_token() -> str | None:
    """Take the rights of others off the token's file; return a line if it had any, else None.

    A file that ``RAY_AUTH_TOKEN_PATH`` names may be shared on purpose, with a group: it is left as it is.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return None
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        path = Path(named) if named else Path.home() / ".ray" / "auth_token"
        found = path.stat()
        wide = stat.S_IMODE(found.st_mode)
        if not wide & (stat.S_IRWXO if named else OTHERS):
            return None
        if not named and found.st_uid == os.geteuid():
            path.chmod(0o600)
            done = "it is 600 now"
        else:
            done = f"chmod {wide & ~stat.S_IRWXO:o} it"
    except (OSError, RuntimeError):
        return None
    return (
        f"{path} had mode {wide:03o}; a user who has read it can run code on Ray as you: {done}; if others use this "
        "machine, delete it, and Ray gets a new one"
    )
