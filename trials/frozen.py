"""What configs are made of, here and in spaces: frozen models, and errors that say value, rule and way out in a line.

Imports no torch, so that who only reads what trials have left need not wait for it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from trials.errors import UserError, unknown_name

SCHEMA = 1
"""Part of every name. Raise it when results of an equal config are no longer comparable."""


class Frozen(BaseModel):
    """Base of every config: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def validate(model: type[Any], content: object, where: str) -> Any:
    """``model`` of ``content``; what pydantic finds wrong becomes one UserError line."""
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
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("Input should ")
    if error["type"] == "value_error":  # our own validators say the field's last name and its value themselves
        parent = path.rpartition(".")[0] if rule.startswith(path.rpartition(".")[2]) else path
        return f"{parent}.{rule}" if parent else rule
    return f"{path} is {error['input']!r}, but must be {rule}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The field names of the model that ``path`` leads to; empty where it leads to no model."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return list(getattr(current, "model_fields", {}))
