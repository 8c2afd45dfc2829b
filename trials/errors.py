"""Exceptions of trials and sweeps. Each message states the value, the rule it breaks and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from trials.aliases import named_here

OUT_OF_MEMORY = "OutOfMemoryError"
"""Type recorded for a trial that failed because host or device memory ran out."""

TIME_LIMIT = "TimeLimit"
"""Type recorded for a trial that has taken as long as it may (see :class:`TimeLimit`)."""

DEAD_DEVICE = "DeadDevice"
"""Type recorded for a trial that failed while its device stopped answering (see :class:`DeadDevice`)."""


DEAD_WHERE = ("node", "machine", "card")
"""What such a record names beside type, message and traceback, if the device was that of another process."""


class _OneLine(Exception):
    """An error whose message is one line, whatever the names and texts in it hold (:func:`one_line`)."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(arg) if isinstance(arg, str) else arg for arg in args))


class UserError(_OneLine):
    """The user's input cannot be run. Commands print the message, which is one line, and exit with code 2."""


class NotAdmitted(UserError):
    """A stored file lists code of a user's, which is imported only where a user asks for it."""


class AbsentCode(UserError):
    """A plug-in of another process is not on this machine."""


class DataError(UserError):
    """A data set is missing, damaged, or not in the form that its name promises."""


class AbsentData(DataError):
    """A data set is not on this machine; another machine may have it."""


class DamagedFile(_OneLine):
    """A committed file is missing or no longer matches its checksum."""


class StorageError(Exception):
    """The storage has not worked for longer than a run waits. What is committed is kept; the same run goes on later.

    No OSError, which may mean that a file is damaged or missing.
    """


class DeadDevice(Exception):
    """After a CUDA error, every further call of its process on the device fails: no trial can run there any more.

    Attributes:
        culprit: the shared trial that ran when it happened, by the name of its folder; empty: the trial itself.
        where: the machine and the card, if it happened in another process: its ``node``, ``machine`` and ``card``.
    """

    def __init__(self, message: str, *, culprit: str = "", where: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.culprit, self.where = culprit, dict(where or {})


class NonFiniteLoss(Exception):
    """A loss became NaN or infinite. The trial fails with this error instead of reporting a row of NaN."""


class Preempted(Exception):
    """The trial was asked to stop; everything up to now is committed and it can continue later."""


class Pruned(Exception):
    """The search has stopped the trial early; everything up to now is committed and it is finished."""


class TimeLimit(Exception):
    """The trial has taken as long as it may; everything up to now is committed, and it fails without another try."""


class Superseded(Exception):
    """A later attempt has taken this trial over, so this attempt's commit is refused."""


class TrialFailed(Exception):
    """A trial that was run by itself has failed; the failure is committed, and running it again tries it again.

    Attributes:
        error: its record: ``type``, ``message`` and ``traceback``.
    """

    def __init__(self, message: str, error: Mapping[str, str]) -> None:
        super().__init__(message)
        self.error = dict(error)


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Return a one-line message for a name that is not in a registry: the value, the rule and the nearest names.

    >>> unknown_name("model", "resnet20", ["resnet20s", "tiny"])
    "model is 'resnet20', but must be one of: resnet20s, tiny (did you mean 'resnet20s'?)"

    The comparison ignores case; if several known names differ only in case, all of them are suggested. Names that other
    libraries use are told what they are called here (:mod:`trials.aliases`).
    """
    names = sorted(known)
    return f"{kind} is {name!r}, but must be one of: {', '.join(names)}{nearest_name(name, names)}"


def nearest_name(name: object, names: Sequence[str]) -> str:
    """Return what a name that is not in ``names`` may mean, in brackets after a space; empty if nothing is near.

    >>> nearest_name("asha", ["halving", "median"])
    ' (asha is called halving here)'
    """
    called = named_here(name, names)
    if called:
        return f" ({called})"
    near = difflib.get_close_matches(str(name).casefold(), {known_name.casefold() for known_name in names}, n=1)
    nearest = [known_name for known_name in names if known_name.casefold() in near]
    return f" (did you mean {' or '.join(map(repr, nearest))}?)" if nearest else ""


def one_line(text: str) -> str:
    r"""``text`` with line breaks, control characters and bytes that are no UTF-8 as escapes.

    >>> one_line("a\nb")
    'a\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """Return ``repr(value)`` for an error message, cut to 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def exact(value: float) -> str:
    """Return all digits of a number for a message, as it was written: without ``.0`` if it is whole.

    >>> exact(1.0000001), exact(64.0)
    ('1.0000001', '64')
    """
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)


def listed(names: Iterable[str], most: int = 8) -> str:
    """Join names for a message; after ``most`` of them, their number only.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def as_unicode(text: str) -> str:
    """The text as files and terminals can hold it: half of a pair of surrogates is written out."""
    return text.encode("utf-8", "backslashreplace").decode()
