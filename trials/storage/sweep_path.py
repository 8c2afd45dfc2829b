"""Names of sweeps, and the folders of a sweep and of its trials in a storage."""

from __future__ import annotations

import re

from trials.errors import UserError
from trials.storage.place import Place, place

STAGES = "stages"
"""Name of the folder of a storage that holds the shared trials of all its sweeps."""

TRIALS = "trials"
"""Name of the folder of a sweep that holds its trials."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")


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
    return place(storage) / name


def has_fixed_name(trial: Place) -> bool:
    """Whether a trial's folder must have the name of the trial, as in a sweep and among the shared trials.

    Elsewhere it is a copy that somebody has made, whose name says nothing.
    """
    return trial.parent.name in (TRIALS, STAGES)
