"""Checks the types of a stored sample's fields, since other processes and people may write in a storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trials.errors import shown

_MAPPINGS = ("pbt", "confirm", "replicate", "pruner")
_PLACE = {"generation": False, "member": False, "parent": True}
"""Numbers in the place of a population's member, and whether there may be none."""


def require_types(cell: Any, number: Any, stopped: Any, mappings: Mapping[str, Any]) -> None:
    """Check a sample. ``mappings``: its grid, params and attrs by name.

    Raises:
        TypeError: a field is of another type than the search writes.
    """
    if not isinstance(cell, str):
        raise TypeError(f"a sample has the cell {shown(cell)}, but it must be text")
    if not _is_count(number):
        raise TypeError(f"a sample has the number {shown(number)}, but it must be a whole number from 0")
    if stopped is not None and not _is_count(stopped):
        raise TypeError(f"a sample has stopped {shown(stopped)}, but it must be a whole number from 0 or null")
    attrs = mappings["attrs"]
    own = {f"attrs.{key}": attrs[key] for key in _MAPPINGS if key in attrs} if isinstance(attrs, Mapping) else {}
    for name, part in {**mappings, **own}.items():
        if not isinstance(part, Mapping):
            raise TypeError(f"a sample has {name} {shown(part)}, but it must be a mapping")
    if "pbt" in attrs:
        _require_place(attrs["pbt"])


def _require_place(place: Mapping[str, Any]) -> None:
    for name, may_lack in _PLACE.items():
        value = place.get(name)
        if not (_is_count(value) or (may_lack and value is None)):
            raise TypeError(f"a sample has attrs.pbt.{name} {shown(value)}, but it must be a whole number from 0")
    if not isinstance(place.get("parent_trial"), (str, type(None))):
        raise TypeError(f"a sample has attrs.pbt.parent_trial {shown(place['parent_trial'])}, but it must be text")
    if not isinstance(place.get("changes"), Mapping):
        raise TypeError(f"a sample has attrs.pbt.changes {shown(place.get('changes'))}, but it must be a mapping")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
