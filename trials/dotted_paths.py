"""Dotted paths (``a.b.c``) in nested mappings: get, set, list, merge and override."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trials.errors import UserError, shown


class NotAMapping(UserError):
    """A dotted path leads through a value that is not a mapping."""


def get_at(content: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path.

    Raises:
        KeyError: a key of the path is missing, or its parent is not a mapping.
    """
    value: Any = content
    for key in path.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(path)
        value = value[key]
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` on top: mappings merge key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def set_at(content: dict[str, Any], path: str, value: Any, by: str = "grid or search") -> None:
    """Set the value at a dotted path in place, creating mappings where the path is missing or null.

    ``by`` names the setter in the error message.

    Raises:
        NotAMapping: the path leads through a value that is neither a mapping nor null.
    """
    *parents, last = path.split(".")
    for depth, key in enumerate(parents, start=1):
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
        if not isinstance(content, dict):
            outer = ".".join(parents[:depth])
            raise NotAMapping(f"{outer} is {shown(content)}, but must be a mapping: {by} sets {path}")
    content[last] = value


def drop_at(content: dict[str, Any], path: str) -> None:
    """Remove the value at a dotted path in place, if there is one, and mappings that are empty without it."""
    key, _, rest = path.partition(".")
    if rest and isinstance(content.get(key), dict):
        drop_at(content[key], rest)
        if content[key]:
            return
    elif rest:
        return
    content.pop(key, None)


def override(content: Any, settings: Iterable[str]) -> Any:
    """Return a copy of ``content`` with every ``a.b=c`` applied; values are read as YAML.

    >>> override({"a": {"b": 1}}, ["a.b=2e-3", "c=[1, 2]"])
    {'a': {'b': 0.002}, 'c': [1, 2]}
    """
    from trials.yaml_text import parse_yaml  # the only one here that needs more than the standard library

    content = copy.deepcopy(content)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not all(path.split(".")):
            raise UserError(f"--set is {setting!r}, but must be a.b=c: a path of keys, an equals sign, a value")
        try:
            if not isinstance(content, dict):
                raise NotAMapping(f"the file is {shown(content)}, but must be a mapping")
            set_at(content, path, None, by="--set")
        except NotAMapping as error:
            raise UserError(f"--set is {setting!r}: {error}") from None
        set_at(content, path, parse_yaml(text, f"--set {setting}"))
    return content


def settings_of(given: Mapping[str, Any] | Iterable[str], said_by: str = "set") -> tuple[str, ...]:
    """Return settings ``a.b=c`` for :func:`override`, from a mapping of dotted paths to values, or from such texts.

    >>> settings_of({"prune.lr": 2e-3, "model": "tiny", "finetune": None})
    ('prune.lr=0.002', 'model="tiny"', 'finetune=null')

    Raises:
        UserError: it is neither, or a path or value cannot be written as a setting.
    """
    from trials.yaml_text import as_yaml

    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Mapping):
        texts = tuple(given) if isinstance(given, Iterable) else (given,)
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise UserError(
                f"{said_by} has {shown(wrong[0])}, but must be a mapping of paths to values, or texts a.b=c"
            )
        return texts
    settings = []
    for path, value in given.items():
        if not isinstance(path, str) or "=" in path:
            raise UserError(f"{said_by} has the path {shown(path)}, but paths are keys joined by dots, as 'prune.lr'")
        try:
            settings.append(f"{path}={json.dumps(as_yaml(value), allow_nan=False, ensure_ascii=False)}")
        except (TypeError, ValueError):
            what = "must be text, a finite number, True, False, None, or lists or mappings of these"
            raise UserError(f"{said_by} has {path} = {shown(value)}, but {what}") from None
    return tuple(settings)


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every field of a config as (dotted path, value)."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
