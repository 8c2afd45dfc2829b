"""The ways a trial or a sweep can go wrong, by name. Each message says the value, the rule and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OUT_OF_MEMORY = "OutOfMemoryError"
"""The type of a failure for want of memory, whoever ran out of it."""


class UserError(Exception):
    """Something the user wrote cannot be run. Commands print it as one line and exit with code 2."""


class DataError(UserError):
    """A data set is missing, damaged or of another form than its name promises."""


class DamagedFile(Exception):
    """A committed file no longer holds what its checksum says."""


class NonFiniteLoss(Exception):
    """The training loss became NaN or infinite: a failure with a name, never a row of NaN."""


class Preempted(Exception):
    """The trial was asked to stop; everything up to now is committed and it can go on later."""


class Pruned(Exception):
    """The search has stopped the trial early; everything up to now is committed and it is finished."""


class Superseded(Exception):
    """A later attempt has taken this trial over; what this one still wanted to commit is refused."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """One line for a name that is not in a registry: the value, the rule, and the nearest names.

    >>> unknown_name("model", "resnet20", ["resnet20s", "tiny"])
    "model is 'resnet20', but must be one of: resnet20s, tiny (did you mean 'resnet20s'?)"

    Capitals count for nothing in what is near: where names differ by them alone, all are told.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name).casefold(), {known_name.casefold() for known_name in names}, n=1)
    nearest = [known_name for known_name in names if known_name.casefold() in near]
    hint = f" (did you mean {' or '.join(map(repr, nearest))}?)" if nearest else ""
    return f"{kind} is {name!r}, but must be one of: {', '.join(names)}{hint}"


def shown(value: object) -> str:
    """``value`` as an error shows it: on one line, cut where it gets long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
