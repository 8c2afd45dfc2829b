"""Names of sweeps, and the folders of a sweep and of its trials in a storage."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from trials.errors import UserError, shown
from trials.storage.place import Place, place
from trials.system.user_path import MOST_NAME_B, MOST_PATH_B

STAGES = "stages"
"""Name of the folder of a storage that holds the shared trials of all its sweeps."""

TRIALS = "trials"
"""Name of the folder of a sweep that holds its trials."""

MOST_KEY_B = 1024
"""Bytes of an object's key that S3 takes at most."""

INSIDE_B = 400
"""Bytes for the longest path within a sweep's folder: a trial's, a file's, and the ending of a temporary file."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")


def is_sweep_name(name: str) -> bool:
    """Whether a folder of a storage can be a sweep's, by its name."""
    return _NAME.fullmatch(name) is not None


def sweep_path(storage: str, name: str, said_by: str = "--name") -> Place:
    """The folder of a sweep in a storage.

    Args:
        said_by: the option that gave the name, or what else did, for messages.

    Raises:
        UserError: the name could lead out of the storage, or is reserved.
    """
    other = "give another with --name" if said_by == "the space's name" else "give another"
    if not _NAME.fullmatch(name):
        rule = "must be letters, digits, '_', '-', '=' and '.', not starting with '.'"
        raise UserError(f"{said_by} is {name!r}, but {rule}: {other}")
    if name == STAGES:
        raise UserError(f"{said_by} is {STAGES!r}, but that folder of the storage holds the shared trials: {other}")
    return _with_room(storage_place(storage) / name, f"{said_by} is {shown(name)} in --storage {shown(storage)}")


def trial_place(where: str | Place) -> Place:
    """The place of a trial that somebody names. A link that they have made to its folder stands for that folder.

    Raises:
        UserError: as :func:`trials.storage.place.place`.
    """
    named = place(where)
    if isinstance(named, Path) and named.is_symlink() and not named.is_file():
        return place(os.path.realpath(named))
    return named


def storage_place(storage: str) -> Place:
    """The place that ``--storage`` names, whether or not anything is there yet.

    Raises:
        UserError: it is no place, or lies in a file or where this process may not look.
    """
    where = place(storage)
    for folder in (where, *where.parents) if isinstance(where, Path) else ():
        try:
            found = folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"--storage is {shown(storage)}, but cannot be reached ({error}): give another") from None
        if not stat.S_ISDIR(found.st_mode):
            raise UserError(f"--storage is {shown(storage)}, but {str(folder)!r} is no folder: give another")
        break
    return where


def _with_room(path: Place, said: str) -> Place:
    """The path of a sweep, if the paths of what lies in it are short enough."""
    name_b, path_b = len(path.name), len(os.fsencode(str(path)))
    most_b = MOST_PATH_B if isinstance(path, Path) else MOST_KEY_B
    if name_b > MOST_NAME_B or path_b > most_b - INSIDE_B:
        raise UserError(
            f"{said}, but a name must have at most {MOST_NAME_B} bytes, and the path of a sweep {most_b - INSIDE_B}: "
            "give shorter ones"
        )
    return path


def has_fixed_name(trial: Place) -> bool:
    """Whether a trial's folder must have the name of the trial, as in a sweep and among the shared trials.

    Elsewhere it is a copy that somebody has made, whose name says nothing.
    """
    return trial.parent.name in (TRIALS, STAGES)
