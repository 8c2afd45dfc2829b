"""Calls of a storage that errs are repeated for a while: a file server fails over, a quota is raised, keys are renewed.

Which errors count is decided in one place (:func:`errs`). Whoever runs something on a storage makes a
:class:`StoragePatience` for it; all calls of storage paths and objects (``stored_path.py``, ``place.py``) in its block
then wait. Without one, as in reports, an error is raised at once.
"""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar

from trials.errors import Preempted, StorageError, UserError, exact, one_line
from trials.system.machine import nearly_full

STORAGE_PATIENCE_S = 600.0
"""Seconds for which a call of the storage is repeated, by default."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 15.0
"""Pauses between tries double from the first to the longest."""

ASK_EVERY_S = 0.5
"""Seconds between two questions whether to stop, in a pause."""

QUIET_S, LONG_S = 60.0, 10.0
"""Where a storage errs again and again, an outage that begins within so many seconds of the last one is said only when
it is so long."""

_FULL = ("ENOSPC", "EDQUOT")
_BY_HAND = ("EROFS", "EACCES", "EPERM", "EFBIG", *_FULL)
_OF_THE_WAY = (
    *("EIO", "ESTALE", "EREMOTEIO", "ENOLCK", "EDEADLK", "EAGAIN", "EBUSY", "EINTR", "EBADMSG", "EUCLEAN", "EPROTO"),
    *("ETIMEDOUT", "ETIME", "ENOTCONN", "ESHUTDOWN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
    *("ENETRESET", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ENOLINK", "ECOMM", "EREMCHG", "ENODATA"),
    *("ENODEV", "ENXIO", "ENOMEDIUM", "ECANCELED", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED", "ENOKEY"),
)


def _numbers(names: tuple[str, ...]) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))  # not each system has all


FULL = _numbers(_FULL)
"""Errors of a disk or a quota that is full."""

BY_HAND = _numbers(_BY_HAND)
"""Errors that a person must mend: a run that has not begun is refused at once, one that runs waits."""

ERRORS = BY_HAND | _numbers(_OF_THE_WAY)
"""Errors of a storage, rather than of what is asked of it."""

_OF_A_STORE = re.compile(r"AWS Error|curlCode|changes faster than it can be read")
_BY_HAND_OF_A_STORE = re.compile(
    r"access_?denied|no_?such_?bucket|invalid_?access_?key_?id|invalid_?token|invalid_?signature|expired_?token|"
    r"signature_?does_?not_?match|invalid_?client_?token_?id|unrecognized_?client|missing_?authentication_?token|"
    r"permanent_?redirect|request_?time_?too_?skewed|HTTP status (301|400|401|403)",
    re.IGNORECASE,  # Arrow names what it knows, as ACCESS_DENIED, and quotes the rest
)

_T = TypeVar("_T")


def errs(error: BaseException) -> bool:
    """Whether an error says that a storage does not work now, and not that something is missing or wrong in it.

    Arrow reports errors of an object store without a number; those of a missing object are FileNotFoundError.
    """
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    return error.errno in ERRORS or (error.errno is None and _OF_A_STORE.search(str(error)) is not None)


def is_by_hand(error: OSError) -> bool:
    """Whether a person must mend it, so that a run that has not begun need not wait."""
    return error.errno in BY_HAND or (error.errno is None and _BY_HAND_OF_A_STORE.search(str(error)) is not None)


def cause_of(error: OSError, where: object = None) -> str:
    """An error as part of a line: its name, what it means, and where it happened."""
    name = errno.errorcode.get(error.errno or 0, "")
    text = f"{name}: {error.strerror}" if name else one_line(" ".join(str(error).split()))
    return text if where is None or str(where) in text else f"{text}, in {where}"


def line_of(error: OSError, *, by_hand: bool) -> str:
    """A line of a command that ends by an error of its storage, or of another place that was named, without waiting."""
    cause = cause_of(error, error.filename)
    refusal = f"this cannot be read or written ({cause}): have that mended, or name another place"
    return refusal if by_hand else f"the storage does not work ({cause})"


class StoragePatience:
    """Repeats what a storage refuses, for a limited time; says once that it errs, and once that it works again.

    Args:
        tell: is given a line, and whether the storage errs (else it works again). From any thread.
        should_stop: whether to give up waiting, asked twice a second.
        limit_s: seconds for which a call is repeated.
        starting: nothing has begun yet: errors that a person must mend are raised at once.
    """

    def __init__(
        self,
        tell: Callable[[str, bool], None],
        should_stop: Callable[[], bool] = lambda: False,
        limit_s: float = STORAGE_PATIENCE_S,
        *,
        starting: bool = False,
    ) -> None:
        self.tell, self.should_stop, self.limit_s, self.starting = tell, should_stop, limit_s, starting
        self.waited_s = 0.0
        """Seconds that calls have waited so far, in this thread and others."""
        self.gave_up: StorageError | None = None
        """What was raised when the storage had erred for too long; from then on nothing waits."""
        self._lock = threading.Lock()
        self._said, self._worked_at = False, -QUIET_S

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let calls of the storage in this block, in this thread, wait as this says."""
        with _set(_NOW, self), acting():
            yield

    def call(self, act: Callable[[], _T], where: object, failed: Callable[[], object] = lambda: None) -> _T:
        """Return what ``act`` returns once the storage works. ``act`` must be safe to repeat.

        ``where`` is named in the lines. ``failed`` is called after each failure.

        Raises:
            Preempted: asked to stop while waiting.
            StorageError: it has erred for ``limit_s``.
            OSError: an error of another kind (:func:`errs`), or one that a person must mend before a run begins.
        """
        outage: Outage | None = None
        while True:
            token = _NOW.set(None)  # what this call consists of does not wait by itself
            try:
                result = act()
            except OSError as error:
                if not errs(error) or (self.starting and is_by_hand(error)):
                    if outage is not None:
                        outage.end()  # an answer, as that there is no such file
                    raise
                failed()
                outage = outage or Outage(self, where)
                failure = error
            else:
                if outage is not None:
                    outage.end()
                return result
            finally:
                _NOW.reset(token)
            outage.failed(failure)
            outage.pause(failure)
            outage.count()

    def say(self, text: str, *, errs: bool, long: bool = True) -> None:
        """Say that the storage errs or works again, unless that has been said, or not yet if it is not ``long``."""
        with self._lock:
            now = time.monotonic()
            if errs and not self._said and not long and now - self._worked_at < QUIET_S:
                return
            if errs == self._said:
                if not errs:
                    self._worked_at = now
                return
            self._said, self._worked_at = errs, self._worked_at if errs else now
        self.tell(text, errs)

    def count(self, seconds: float) -> None:
        """Count time that a call has waited."""
        with self._lock:
            self.waited_s += seconds


class Outage:
    """The failures of one call, from the first to its success or its end."""

    def __init__(self, patience: StoragePatience, where: object) -> None:
        self._patience, self._where = patience, where
        self.began = time.monotonic()
        self.pause_s: float = FIRST_PAUSE_S
        self._counted = self.began

    def failed(self, error: OSError) -> None:
        """Say what has failed, unless that was said.

        Raises:
            StorageError: that was the last try.
        """
        patience, lasted = self._patience, time.monotonic() - self.began
        cause = cause_of(error, self._where)
        if patience.gave_up is not None or lasted >= patience.limit_s:
            whole = StorageError(
                f"the storage has not worked for {lasted:.0f} s ({cause}): nothing that is committed is lost; once it "
                "works, the same command goes on (storage_patience_s is how long to wait)"
            )
            patience.gave_up = patience.gave_up or whole
            raise patience.gave_up from error
        within = f"for {exact(patience.limit_s)} s at most"
        if error.errno in FULL:
            line = f"no room to write ({cause}): waiting until there is, {within}"
        else:
            line = f"the storage does not work ({cause}): waiting until it does, {within}"
        patience.say(line, errs=True, long=lasted >= LONG_S)

    def next_pause(self) -> float:
        """Seconds until the next try: more each time, but the last try is at the limit."""
        pause_s = self.pause_s
        self.pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return min(pause_s, max(0.0, self.began + self._patience.limit_s - time.monotonic()))

    def pause(self, error: OSError) -> None:
        """Wait until the next try. Raises Preempted if asked to stop."""
        until = time.monotonic() + self.next_pause()
        while True:
            if self._patience.should_stop() or _GIVEN_UP.get()():
                raise Preempted from error
            left = until - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, ASK_EVERY_S))

    def end(self, *, waited: bool = True) -> None:
        """Say that the storage works again, if it was said that it does not. ``waited``: nothing else was done."""
        if waited:
            self.count()
        self._patience.say(f"the storage works again, after {time.monotonic() - self.began:.1f} s", errs=False)

    def count(self) -> None:
        """Count the time since the last count as waited."""
        now = time.monotonic()
        self._patience.count(now - self._counted)
        self._counted = now


_NOW: ContextVar[StoragePatience | None] = ContextVar("patience", default=None)


def patiently(act: Callable[[], _T], where: object, failed: Callable[[], object] = lambda: None) -> _T:
    """Call ``act`` as the patience of this thread says (:meth:`StoragePatience.call`), or once if there is none."""
    patience = _NOW.get()
    return act() if patience is None else patience.call(act, where, failed)


_GIVEN_UP: ContextVar[Callable[[], bool]] = ContextVar("given_up", default=lambda: False)
"""Whether nobody waits any more for what this thread does."""


def in_this_thread(given_up: Callable[[], bool]) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """Return what makes a function wait in other threads as it would in this one, until it is ``given_up``."""
    context, before = copy_context(), _GIVEN_UP.get()
    context.run(_GIVEN_UP.set, lambda: given_up() or before())
    return lambda function: lambda *arguments: context.copy().run(function, *arguments)


@contextmanager
def _set(variable: ContextVar[_T], value: _T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


_ACTING: ContextVar[bool] = ContextVar("acting", default=False)


@contextmanager
def acting() -> Iterator[None]:
    """Let nothing that cannot be read count as missing or damaged in this block, since it acts on what it reads."""
    with _set(_ACTING, True):
        yield


def in_a_run() -> bool:
    """Whether this thread is in a run, even if it does not wait, or in :func:`acting`. A report is in neither."""
    return _ACTING.get()


@contextmanager
def impatient() -> Iterator[None]:
    """Let calls of the storage in this block raise their errors at once."""
    with _set(_NOW, None):
        yield


def has_begun() -> None:
    """Let this thread's patience wait, from now on, for what a person must mend, too."""
    patience = _NOW.get()
    if patience is not None:
        patience.starting = False


@contextmanager
def refused_at_start(storage: object) -> Iterator[None]:
    """Turn an error of the storage for which nothing has waited into a UserError of one line."""
    try:
        with one_line_if_full(storage):
            yield
    except OSError as error:
        if not errs(error):
            raise
        raise UserError(
            f"the storage {storage} cannot be used ({cause_of(error, error.filename)}): mend that, or give another "
            "--storage; what is committed is kept"
        ) from None


@contextmanager
def one_line_if_full(storage: object) -> Iterator[None]:
    """Turn the error of a write that fails because a disk is full into a UserError that names the disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"no room to write ({error}){nearly_full(storage)}: free space, then run the same command again; what is "
            "committed is kept"
        ) from None
