"""Paths as people write them, with ``~``: checked before anything is read or made."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from trials.errors import UserError, shown

MOST_NAME_B, MOST_PATH_B = 255, 4095
"""Bytes that Linux takes at most: of one name, and of a path."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def user_path(given: str | Path, said: str) -> Path:
    """Return a path with its ``~`` or ``~user`` expanded.

    Args:
        said: the option or field that gives it, for messages.

    Raises:
        UserError: it is empty, has control characters or bytes that are no text, is longer than Linux allows, names a
            user who does not exist, or holds a variable that the shell has not replaced.
    """
    text = os.fspath(given)
    if not text:
        raise UserError(f"{said} is '', but must be a path: give one")
    if _CONTROL.search(text):
        raise UserError(f"{said} is {shown(text)}, but a path here must have no control characters, and be UTF-8")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise UserError(f"{said} is {shown(text)}, but {shown(user)} has no home here: give the whole path") from None
    if len(os.fsencode(path)) > MOST_PATH_B or any(len(os.fsencode(name)) > MOST_NAME_B for name in path.parts):
        raise UserError(
            f"{said} is {shown(text)}, but a path must have at most {MOST_PATH_B} bytes, and each of its names "
            f"{MOST_NAME_B}: give a shorter one"
        )
    variable = _VARIABLE.search(text)
    if variable is not None and not os.path.lexists(path):
        raise UserError(
            f"{said} is {shown(text)}, but {variable[0]} was not replaced by the shell (single quotes, or a file): "
            "give the path itself"
        )
    return path


def path_argument(said: str) -> Callable[[str], Path]:
    """Return argparse's ``type`` for an option or argument that is a path; ``said`` names it in messages."""
    return lambda text: user_path(text, said)
