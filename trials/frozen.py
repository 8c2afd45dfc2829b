"""Base of all configs (trials and spaces): frozen pydantic models whose validation errors are one-line messages.

Imports no torch, so that reading results stays fast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from trials.errors import UserError, nearest_name, unknown_name

SCHEMA = 1
"""Version of the folders' format, written into the files of sweeps and trials. Names of trials do not depend on it."""


class Frozen(BaseModel):
    """Base of every config: immutable, refuses unknown keys, NaN and infinity, and converts no types silently.

    Attributes:
        as_before: of fields that a later version added, the values that stand for what was computed before them. They
            are no part of a trial's name, and a stored config without such a field has them. The default is another
            value; where it computes something else, a revision says so.
    """

    as_before: ClassVar[Mapping[str, Any]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def validate(model: type[Any], content: object, where: str) -> Any:
    """Validate ``content`` as ``model``; ``where`` prefixes the paths in messages.

    Raises:
        UserError: pydantic's first three errors, as one line.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError("; ".join(_explain(e, model, where) for e in error.errors()[:3])) from None


def _explain(error: ErrorDetails, model: type[BaseModel], where: str) -> str:
    path = ".".join([where, *map(str, error["loc"])]).strip(".")
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, error["loc"][:-1])
        parent = path.rpartition(".")[0]
        return unknown_name(f"{parent}: key" if parent else "key", error["loc"][-1], fields)
    if error["type"] == "invalid_key":
        return f"{error['input']!r} is not a known key"
    if error["type"] == "missing":
        return f"{path} is missing: add it"
    if error["type"] == "bool_type":
        return f"{path} is {error['input']!r}, but must be true or false"
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{path} is {error['input']!r}, but must be a mapping of: {', '.join(_fields_at(model, error['loc']))}"
    if error["type"] == "string_too_short":
        return f"{path} is {error['input']!r}, but must be text that is not empty"
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("Input should ")
    if error["type"] == "value_error":  # messages of our own validators already name the field and its value
        parent = path.rpartition(".")[0] if rule.startswith(path.rpartition(".")[2]) else path
        return f"{parent}.{rule}" if parent else rule
    if error["type"] == "literal_error":
        rule += nearest_name(error["input"], re.findall(r"'([^']*)'", rule))
    text = error["input"]
    plain = text.replace("_", "") if error["type"] in ("int_type", "float_type") and isinstance(text, str) else ""
    return f"{path} is {text!r}, but must be {rule}" + (f": write {plain}" if plain.isdecimal() else "")


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Field names of the model at ``path``; empty if there is no model at that path."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return list(getattr(current, "model_fields", {}))
