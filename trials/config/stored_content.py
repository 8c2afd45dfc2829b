"""Compares a stored config, as JSON, with the config that the code makes now, field by field.

A field that the stored config lacks counts as its default, because a new field must not change what earlier configs
compute, or as the value that stands for what was computed before it (:attr:`trials.frozen.Frozen.as_before`). Fields
that it has and the code does not know are not compared: they are part of the name unless they were defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from trials.config.trial_config import WHERE, TrialConfig

NO_CONTENT = {*WHERE, "file_hashes"}
"""Fields that are not compared: where a trial runs, and the hashes of files, which are compared as such."""

ABSENT = object()
"""Stands for the value of a field that a stored config lacks."""


def differing_fields(stored: Mapping[str, Any], config: TrialConfig) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted path, stored value or ``ABSENT``, value now) of the fields that differ, values as JSON."""
    for path, before, now in _fields(stored, config, ""):
        if path not in config.indifferent:
            yield path, before, now


def as_then(stored: Mapping[str, Any], config: type[BaseModel]) -> dict[str, Any]:
    """Return a stored config of this type with the fields that were added since, where others than their defaults."""
    content = dict(stored)
    for name, field in config.model_fields.items():
        inner = field.annotation
        if name not in content:
            before = getattr(config, "as_before", {})
            content |= {name: before[name]} if name in before else {}
        elif isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(content[name], Mapping):
            content[name] = as_then(content[name], inner)
    return content


def _fields(stored: Mapping[str, Any], now: BaseModel, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    dumped = now.model_dump(mode="json")
    for name, field in type(now).model_fields.items():
        path, value = f"{prefix}{name}", getattr(now, name)
        if path in NO_CONTENT:
            continue
        if name not in stored:
            as_before = getattr(now, "as_before", {})
            if value not in (field.get_default(call_default_factory=True), as_before.get(name, ABSENT)):
                yield path, ABSENT, dumped[name]
        else:
            yield from _values(stored[name], value, dumped[name], path)


def _values(stored: Any, value: Any, dumped: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(value, BaseModel) and isinstance(stored, Mapping):
        yield from _fields(stored, value, f"{path}.")
    elif _of_models(value) and isinstance(stored, list) and len(value) == len(stored):
        for i, (one, other, as_json) in enumerate(zip(stored, value, dumped, strict=True)):
            yield from _values(one, other, as_json, f"{path}.{i}")
    elif stored != dumped:
        yield path, stored, dumped


def _of_models(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(entry, BaseModel) for entry in value)
