"""Fields of configs as people read them: path, default, allowed values and meaning, generated from the classes."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from sweeper.describe.meanings import meanings_of
from trials.config.recipes import OneOf

MOST_NAMES = 9
"""Of more names than this, only their number is shown."""


@dataclass(frozen=True)
class DescribedField:
    """A field of a config.

    Attributes:
        path: dotted path.
        default: as it is written in YAML; ``required`` if there is none.
        values: which values it takes, as ``number > 0, <= 1``.
        meaning: one line of text.
        info: pydantic's own description.
        nested: whether it holds fields of its own, which follow.
        owner: the class that defines it first.
    """

    path: str
    default: str
    values: str
    meaning: str
    info: FieldInfo
    nested: bool
    owner: type[BaseModel]


def described_fields(
    config: type[BaseModel], prefix: str = "", default: BaseModel | None = None
) -> Iterator[DescribedField]:
    """Yield the fields of a config, each followed by those that it holds.

    Args:
        prefix: of every path.
        default: the values that the config's defaults are, where a class above it has others.
    """
    meanings = meanings_of(config)
    for name, info in config.model_fields.items():
        if name in UNSHOWN:
            continue
        inner = model_in(info.annotation)
        value = getattr(default, name) if default is not None else info.get_default(call_default_factory=True)
        text = yaml_text(value) if not info.is_required() or default is not None else "required"
        if inner is not None and isinstance(value, BaseModel):
            text = "as follows"
        path = f"{prefix}{name}"
        owner = next(c for c in reversed(config.__mro__) if name in inspect.get_annotations(c))
        yield DescribedField(path, text, values_text(info), meanings.get(name, ""), info, inner is not None, owner)
        if inner is not None:
            yield from described_fields(inner, f"{path}.", value if isinstance(value, inner) else None)


UNSHOWN = frozenset({"file_hashes", "lineage"})
"""Fields that the program sets itself."""


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the config class that a field holds, also where it may be null; None if it holds none."""
    options = (annotation, *get_args(annotation))
    return next((one for one in options if isinstance(one, type) and issubclass(one, BaseModel)), None)


def yaml_text(value: Any) -> str:
    """Return a value as it is written in one line of YAML.

    >>> yaml_text(1e-6), yaml_text(None), yaml_text((1, 2)), yaml_text(True)
    ('1.0e-6', 'null', '[1, 2]', 'true')
    """
    if isinstance(value, BaseModel):
        inside = ", ".join(f"{name}: {yaml_text(getattr(value, name))}" for name in type(value).model_fields)
        return f"{{{inside}}}"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(yaml_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {yaml_text(one)}' for key, one in value.items())}}}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _number(value: float) -> str:
    """A number with a point, which YAML 1.1 needs before an exponent as well."""
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{int(exponent)}" if e else text


def values_text(info: FieldInfo) -> str:
    """Return which values a field takes, as text."""
    names = known_names(info.metadata)
    optional = " | null" if type(None) in get_args(info.annotation) else ""
    if names is not None:
        return f"{_names_text(list(names))}{optional}"
    kind = _type_text(info.annotation).removesuffix(" | null")
    rules = ", ".join(text for rule in info.metadata if (text := _rule_text(rule)))
    return f"{kind} {rules}".rstrip() + optional


def _rule_text(rule: Any) -> str:
    for kind, sign in ((Gt, "gt"), (Ge, "ge"), (Lt, "lt"), (Le, "le")):
        if isinstance(rule, kind):
            return f"{_SIGNS[sign]} {yaml_text(getattr(rule, sign))}"
    return "not empty" if isinstance(rule, MinLen) else ""


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _type_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _names_text([yaml_text(value) for value in arguments])
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(map(_type_text, arguments)))
    if origin is tuple or origin is list:
        return "list"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "fields"
    if hasattr(annotation, "__metadata__"):
        names = known_names(annotation.__metadata__)
        return _names_text(list(names)) if names is not None else _type_text(arguments[0])
    return _TYPES.get(annotation, "value")


_TYPES: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true | false",
    str: "text",
    type(None): "null",
}


def _names_text(names: list[str]) -> str:
    return " | ".join(names) if len(names) <= MOST_NAMES else f"one of {len(names)} names"


def known_names(metadata: Collection[Any]) -> Collection[str] | None:
    """Return the names that one of a field's validators accepts (:func:`trials.config.recipes.one_of`), if any."""
    found = (names_accepted_by(rule.func) for rule in metadata if isinstance(rule, AfterValidator))
    return next((names for names in found if names is not None), None)


def names_accepted_by(validator: Callable[..., Any]) -> Collection[str] | None:
    """Return the registry that a validator of names looks into; None if it is no such validator."""
    return validator.registry if isinstance(validator, OneOf) else None
