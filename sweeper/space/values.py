"""Checks of plain values in space files: text, numbers, true, false and null, in lists and mappings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trials.errors import UserError, shown
from trials.frozen import Frozen

Scalar = str | int | float | bool | None

MOST_LEVELS = 16
MOST_VALUES = 100_000
"""Limits on nesting and number of values: YAML aliases let a few lines expand without bound."""


def plain(content: object, where: str) -> Any:
    """Copy parsed YAML, checking that it holds only mappings with text keys, lists and scalars.

    Raises:
        UserError: it holds something else, such as dates, NaN, other keys or integers beyond 64 bits, or is too large.
    """
    return _plain(content, where, 0, itertools.count(1))


def _plain(content: object, where: str, depth: int, counter: Iterator[int]) -> Any:
    if depth > MOST_LEVELS:
        raise UserError(f"{where} lies {depth} levels deep, but a space has at most {MOST_LEVELS}")
    if next(counter) > MOST_VALUES:
        raise UserError(f"{where} has too many values: a space holds at most {MOST_VALUES}")
    if isinstance(content, dict):
        return {
            _key(key, where): _plain(value, f"{where}.{key}" if where else str(key), depth + 1, counter)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [_plain(value, f"{where}[{index}]", depth + 1, counter) for index, value in enumerate(content)]
    return _scalar(content, where)


def _key(key: object, where: str) -> str:
    if not isinstance(key, str) or not key.isprintable():
        raise UserError(f"{where or 'a space'} has the key {_number_or(key)}, but keys must be text: put it in quotes")
    return key


def _scalar(value: object, where: str) -> Scalar:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise UserError(f"{where} is {_number_or(value)}, but must fit in 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} is {value}, but must be finite")
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise UserError(f"{where} is {shown(value)}, but must be text, a number, true, false or null: put it in quotes")


def _number_or(value: object) -> str:
    """Return ``shown(value)``; integers too long for Python to print are described by their size."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    return shown(value)


def mapping(content: Any, where: str) -> dict[str, Any]:
    """Return ``content`` if it is a mapping; raise a UserError otherwise."""
    if not isinstance(content, dict):
        raise UserError(f"{where} is {shown(content)}, but must be a mapping of keys to values")
    return content


def strings(content: object) -> tuple[str, ...]:
    """Return the texts of a list; nothing if it is none."""
    return tuple(entry for entry in content if isinstance(entry, str)) if isinstance(content, (list, tuple)) else ()


def scalars(content: object, where: str) -> tuple[Scalar, ...]:
    """Return the values of a non-empty list of distinct scalars; 1 and 1.0 count as the same value.

    Raises:
        UserError: it is no such list.
    """
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise UserError(f"{where} is {shown(content)}, but must be a list of values")
    if not content:
        raise UserError(f"{where} is [], but must have at least one value")
    seen: set[Scalar] = set()
    for value in content:
        if value is not None and not isinstance(value, (str, int, float)):
            raise UserError(f"{where} has {shown(value)}, but its values must be text, numbers, true, false or null")
        if value in seen:
            raise UserError(f"{where} has {shown(value)} twice, but must have every value once: remove one")
        seen.add(value)
    return tuple(content)


def finite_number(value: object) -> float | None:
    """Return ``value`` as a float; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond float64
        return None


def mapping_entry(entry: object, where: str, example: str) -> Any:
    """Return ``entry`` if it is a mapping or already parsed; raise a UserError otherwise."""
    if not isinstance(entry, (Mapping, Frozen)):
        raise UserError(f"{where} is {shown(entry)}, but must be a mapping such as {example}")
    return entry


def refuse_twins(names: Sequence[Scalar], where: str) -> None:
    """Raise a UserError if a name occurs twice."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where} has {name} twice, but must have each once: remove one")
