"""Which patterns a method prunes by, read from its config: the README's table says the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from trials.methods.base import Method
from trials.sparsity import PATTERNS


def patterns_of(method: type[Method]) -> tuple[str, ...]:
    """Return the names of the patterns that a method's config accepts, in the order of ``PATTERNS``.

    They stand in its field ``pattern`` or ``unit``, or in ``backward.pattern`` of its recipe, unless the method says
    them itself (``Method.prunes``). Empty for a method that prunes nothing.
    """
    accepted = set(method.prunes)
    for name, field in () if accepted else _fields(method.Config):
        if name in ("pattern", "unit"):
            accepted |= {pattern for pattern in PATTERNS if _accepts(field, pattern)}
    return tuple(name for name in PATTERNS if name in accepted)


def _fields(config: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the fields of a config and those of the backward pruning of its own recipes."""
    yield from config.model_fields.items()
    default = config.model_fields["train"].default if "train" in config.model_fields else None
    if (backward := getattr(default, "backward", None)) is not None:
        yield from type(backward).model_fields.items()


def _accepts(field: FieldInfo, value: str) -> bool:
    kind: Any = field.annotation
    for rule in field.metadata:
        kind = Annotated[kind, rule]
    if not get_args(kind):
        return False
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True
