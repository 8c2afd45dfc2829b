"""How a profile and ``--set`` change what a space file says, before anything of it is resolved.

An entry of ``grid`` or ``search`` is one value: it is replaced as a whole, and null removes it. Only a condition of the
grid stays where nothing but values is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trials.errors import UserError
from trials.reading import merge, override

SECTIONS = ("grid", "search")


def merge_profile(content: dict[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` with a profile merged over it: mappings merge, everything else is replaced."""
    merged = merge(content, {key: value for key, value in profile.items() if key not in SECTIONS})
    for section in SECTIONS:
        if section in profile:
            merged[section] = _replace(merged.get(section), profile[section], section)
    return merged


def apply_setting(content: dict[str, Any], setting: str) -> Any:
    """``content`` with one ``a.b=c``. What follows ``grid.`` or ``search.`` is one key, dots and all."""
    section, dot, rest = setting.partition("=")[0].partition(".")
    if section not in SECTIONS or not dot:
        return override(content, [setting])
    value = override({}, [setting])
    for key in (section, *rest.split(".")):
        value = value[key]
    return {**content, section: _replace(content.get(section), {rest: value}, section)}


def _replace(old: object, new: object, section: str) -> Any:
    """A grid or search with the entries of another in place of its own; null removes one."""
    old = {} if old is None else old
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    for path, value in new.items():
        if value is None and path not in old:
            raise UserError(f"{section}.{path} is null, which removes it, but it is not there: leave it out")
    entries = {path: value for path, value in {**old, **new}.items() if path not in new or value is not None}
    for path, before in old.items() if section == "grid" else ():
        if isinstance(before, dict) and "when" in before and isinstance(new.get(path), (list, str)):
            entries[path] = {**before, "values": new[path]}
    return entries
