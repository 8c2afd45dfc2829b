"""Read pickles of plain values where they lie, without executing them.

A pickle is a program. The one that is read here may put bytes, texts, whole numbers, None, lists and tuples together
and nothing else: it has no way to name a class or a function, and no way to call one. Bytes are not copied, but given
as places, so that the label behind an image is found without reading the image.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from mmap import mmap
from typing import Any

from trials.data.lmdb.btree import Extent

_LENGTHS = {"C": "<B", "B": "<I", "\x8e": "<Q", "\x96": "<Q"}  # of bytes and bytearrays
_TEXTS = {"\x8c": "<B", "X": "<I", "\x8d": "<Q"}
_NUMBERS = {"K": "<B", "M": "<H", "J": "<i"}
_VALUES: dict[str, Any] = {"N": None, "\x88": True, "\x89": False, ")": ()}
_SKIPPED = {"\x80": 1, "\x95": 8}  # protocol, frame
_REMEMBERED = {"q": "<B", "r": "<I"}
_RECALLED = {"h": "<B", "j": "<I"}
_TUPLES = {"\x85": 1, "\x86": 2, "\x87": 3}
_MARK = object()


class NotPlain(Exception):
    """The content is no whole pickle of plain values; the message is a clause that says why."""


def plain_value(content: mmap | bytes, span: Extent) -> Any:
    """Return the value of the pickle at a place; bytes in it are Extents of ``content``.

    Raises:
        NotPlain: it would build or call something else, or is damaged.
    """
    try:
        return _Reader(content, span).value()
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, TypeError, AttributeError, OverflowError):
        raise NotPlain("is damaged") from None


class _Reader:
    def __init__(self, content: mmap | bytes, span: Extent) -> None:
        self.content, self.at, self.end = content, span.start, span.start + span.length
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def value(self) -> Any:
        stack = self.stack
        while True:
            code = chr(self._take(1)[0])
            if code == ".":
                (found,) = stack if len(stack) == 1 else (stack[-1],)
                return found
            if code in _LENGTHS:
                stack.append(self._skip(self._number(_LENGTHS[code])))
            elif code in _NUMBERS:
                stack.append(self._number(_NUMBERS[code]))
            elif code == "\x94":
                self.memo[len(self.memo)] = stack[-1]
            elif code in _REMEMBERED:
                self.memo[self._number(_REMEMBERED[code])] = stack[-1]
            elif code in _TUPLES:
                stack[-_TUPLES[code] :] = [tuple(stack[-_TUPLES[code] :])]
            else:
                self._rarer(code)

    def _rarer(self, code: str) -> None:
        stack = self.stack
        if code in _SKIPPED:
            self._skip(_SKIPPED[code])
        elif code in _VALUES:
            stack.append(_VALUES[code])
        elif code in _TEXTS:
            stack.append(self._take(self._number(_TEXTS[code])).decode())
        elif code in _RECALLED:
            stack.append(self.memo[self._number(_RECALLED[code])])
        elif code == "\x8a":
            stack.append(int.from_bytes(self._take(self._number("<B")), "little", signed=True))
        elif code in "(]":
            stack.append(_MARK if code == "(" else [])
        elif code in "tlea":
            self._collect(code)
        else:
            raise NotPlain(f"holds more than bytes, texts, numbers, lists and tuples (pickle's code {code!a})")

    def _collect(self, code: str) -> None:
        """Put the topmost values together: a tuple or a list of them, or one or several appended to a list."""
        stack = self.stack
        mark = len(stack) - 1
        while code != "a" and stack[mark] is not _MARK:
            mark -= 1
        values = stack[-1:] if code == "a" else stack[mark + 1 :]
        del stack[-1 if code == "a" else mark :]
        if code in "tl":
            make: Callable[[list[Any]], Any] = tuple if code == "t" else list
            stack.append(make(values))
        else:
            stack[-1].extend(values)

    def _number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        return int(struct.unpack(kind, self._take(size))[0])

    def _take(self, length: int) -> bytes:
        span = self._skip(length)
        return self.content[span.start : span.start + span.length]

    def _skip(self, length: int) -> Extent:
        if length < 0 or self.at + length > self.end:
            raise NotPlain("is damaged")
        span = Extent(self.at, length)
        self.at += length
        return span
