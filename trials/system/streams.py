"""Standard streams that can be used, whatever they lead to: closed, full, another encoding, a reader that goes away."""

from __future__ import annotations

import codecs
import errno
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

from trials.called import reader_has_gone
from trials.errors import UserError
from trials.system.account import name_account

READABLE = "sparsity_sweeper_readable"
"""Name of the error handler of codecs (:func:`codecs.register_error`) that writes text :func:`in_ascii`."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_ASCII = {
    "–": "-", "—": "-", "−": "-", "·": "-", "•": "*", "…": "...", "×": "x", "±": "+-", "→": "->", "←": "<-",
    "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "∞": "inf", "µ": "u", "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def in_ascii(text: str) -> str:
    r"""``text`` in ASCII: lines of tables and punctuation by what looks alike, letters without accents, else escapes.

    >>> in_ascii("0.5 ± 0.1 × é ─│┼ α")
    '0.5 +- 0.1 x e -|+ \\u03b1'
    """
    return "".join(c if c.isascii() else _ASCII.get(c) or _drawn(c) or _plain(c) for c in text)


def _drawn(character: str) -> str:
    """A character of frames, bars and spinners in ASCII; empty for others."""
    number = ord(character)
    if 0x2500 <= number < 0x2580:
        words = set(unicodedata.name(character).split())
        across, along = bool(words & {"HORIZONTAL", "LEFT", "RIGHT"}), bool(words & {"VERTICAL", "UP", "DOWN"})
        return "+" if across and along else "|" if along else "-"
    return "#" if 0x2580 <= number < 0x25A0 else "*" if 0x2800 <= number < 0x2900 else ""


def _plain(character: str) -> str:
    parts = unicodedata.normalize("NFKD", character)
    ascii_only = "".join(c for c in parts if c.isascii())
    rest = all(c.isascii() or unicodedata.combining(c) for c in parts)
    return ascii_only if ascii_only and rest else character.encode("ascii", "backslashreplace").decode()


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


codecs.register_error(READABLE, _replaced)


class Output:
    """A text stream whose errors a command handles in one place. It has the stream's other attributes, too.

    Characters that its encoding does not have are written as text :func:`in_ascii`.

    Attributes:
        stream: where to write.
        failed: called with every error; unless it raises, what could not be written is dropped.
    """

    def __init__(self, stream: TextIO, failed: Callable[[TextIO, OSError], None]) -> None:
        self.stream, self.failed = stream, failed

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            try:
                self.stream.write(text)
            except UnicodeEncodeError as error:
                encoding = self.stream.encoding or error.encoding
                self.stream.write(text.encode(encoding, READABLE).decode(encoding))
        except OSError as error:
            self.failed(self.stream, error)
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Write texts."""
        self.write("".join(texts))

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self.stream.flush()
        except OSError as error:
            self.failed(self.stream, error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _OnceSaid:
    """What a run does about its standard output: it goes on, and says so once on standard error.

    Once the reader or the terminal has gone, output is dropped; on a full disk, while there is no room.
    """

    said = False

    def __call__(self, stream: TextIO, error: OSError) -> None:
        if error.errno not in _FULL:
            _lead_nowhere(stream)
        if not self.said:
            self.said = True
            with suppress(OSError, ValueError, AttributeError):
                reason = os.strerror(error.errno) if error.errno else str(error)
                err = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # else rich shows it on the lost terminal
                err.write(f"note: standard output cannot be written ({reason}): the run goes on without it\n")
                err.flush()


def _refuse(stream: TextIO, error: OSError) -> None:
    """What other commands do about it: they end."""
    if isinstance(error, BrokenPipeError):
        raise error
    _lead_nowhere(stream)
    raise UserError(f"standard output cannot be written ({error}): make room, or send it elsewhere") from None


def lasting(stream: TextIO) -> TextIO:
    """Return a stream for a run's output, which goes on if that cannot be written, and says so once on stderr."""
    return cast(TextIO, Output(stream, _OnceSaid()))


def as_command(main: Callable[[], int]) -> int:
    """Run the command of this process, with standard streams and an account, and return its exit code.

    If the reader of standard output has gone, as under ``| head``, the command ends with 1, without a word; if standard
    output cannot be written for another reason, with 2 and one line. See :func:`last_to_the_end` for runs.
    """
    prepare_streams()
    name_account()
    try:
        try:
            return main()
        finally:
            end_output()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not reader_has_gone():
            raise
        return 1


def prepare_streams() -> None:
    """Make this process's standard streams usable, for a command: call it before anything is opened or printed.

    A closed stream leads nowhere, so that no other file gets its number. Output waits for a slow reader. Characters
    that an encoding does not have become text :func:`in_ascii`. Errors of standard error are ignored; standard output
    raises BrokenPipeError if its reader has gone, and UserError if it cannot be written for another reason.
    """
    for number in (0, 1, 2):
        with suppress(OSError):
            try:
                os.fstat(number)
            except OSError:
                _put_nowhere(number)
            if number:
                os.set_blocking(number, True)
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  open as long as the process
    for name, failed in (("stdout", _refuse), ("stderr", _ignore)):
        stream = getattr(sys, name)
        if stream is None:
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        setattr(sys, name, Output(stream, failed))


def last_to_the_end() -> None:
    """Let the run that begins now go on without its standard output, once that cannot be written."""
    if isinstance(sys.stdout, Output):
        sys.stdout.failed = _OnceSaid()


def end_output() -> None:
    """Write what is buffered for standard output, at the end of a command; see :func:`prepare_streams` for errors."""
    sys.stdout.flush()
    if isinstance(sys.stdout, Output) and isinstance(sys.stdout.failed, _OnceSaid) and sys.stdout.failed.said:
        _lead_nowhere(sys.stdout.stream)  # drop what a full disk has left in the buffer
        sys.stdout.flush()


def _ignore(stream: TextIO, error: OSError) -> None:
    _lead_nowhere(stream)


def _lead_nowhere(stream: TextIO) -> None:
    with suppress(OSError, ValueError, AttributeError):
        _put_nowhere(stream.fileno())


def _put_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
