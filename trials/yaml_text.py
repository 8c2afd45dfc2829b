"""Read YAML written by users: plain values by YAML 1.2's core schema, duplicate keys are errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from trials.errors import UserError

_TAG = "tag:yaml.org,2002:"

CORE_SCHEMA = {
    "null": re.compile(r"(?:~|null|Null|NULL|)\Z"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    "float": re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}
"""Which plain values are no text, in order: https://yaml.org/spec/1.2.2/#1032-tag-resolution."""

_BASES = {"0o": 8, "0x": 16}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2 instead of YAML 1.1's types; refuses duplicate keys.

    By YAML 1.1, which PyYAML follows, 010 is 8, 1:30 is 90, 1_000 is 1000, yes is true, 1e-4 is text, and 2026-11-27
    is a date. Merge keys (``<<``), which the core schema lacks, work; other types need their tag (``!!timestamp``).
    """

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  PyYAML's own attribute

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == f"{_TAG}merge":  # "<<: *name"; merged keys may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float)):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} occurs twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_core(self, node: yaml.ScalarNode) -> bool | int | float:
        """A bool, int or float, by the core schema also where the tag is written out (``!!int 010``)."""
        kind, text = node.tag.removeprefix(_TAG), str(self.construct_scalar(node))
        if not CORE_SCHEMA[kind].match(text) and not (kind == "float" and CORE_SCHEMA["int"].match(text)):
            raise yaml.constructor.ConstructorError(None, None, f"{text!r} is no {kind}", node.start_mark)
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(text[2:], _BASES[text[:2]]) if text[:2] in _BASES else int(text)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


for _kind, _pattern in CORE_SCHEMA.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", _pattern, None)
    if _kind != "null":
        _Loader.add_constructor(f"{_TAG}{_kind}", _Loader.construct_core)
_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"<<\Z"), None)


MOST_YAML_LEVELS = 100
"""How deeply YAML may be nested. The parser in C calls itself for each level, and has crashed at 100,000 of them."""

MOST_YAML_VALUES = 2_000_000
"""Most values of YAML text, with a copy of what it names for every alias; ten thousand cells have some 100,000."""


_FEW_BRACKETS, _DEEP = 20, re.compile(r"^[ \t?:-]{40,}|[\r\x85\u2028\u2029]", re.MULTILINE)
"""A block of values begins further right than the one around it, or a level is a bracket: text with no more brackets,
and without such a line, is less than MOST_YAML_LEVELS deep."""


def require_modest(text: str) -> None:
    """Refuse YAML whose values are nested too deeply, or of which aliases and merge keys make too many copies.

    Raises:
        ValueError: they are.
        yaml.YAMLError: the text is not YAML.
    """
    brackets = text.count("[") + text.count("{") - text.count("[]") - text.count("{}")
    if brackets <= _FEW_BRACKETS and not _DEEP.search(text) and ("*" not in text or "&" not in text):
        return  # the usual case: no need to parse the text twice
    depth_of: list[tuple[str | None, int]] = []  # of each open collection, its anchor and the values before it
    sizes: dict[str, int] = {}
    values = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{event.anchor} names nothing before it, or what holds it")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            depth_of.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = depth_of.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(depth_of) > MOST_YAML_LEVELS:
            raise ValueError(f"it is nested more than {MOST_YAML_LEVELS} levels deep")
        if values > MOST_YAML_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_YAML_VALUES} values")


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text.

    Raises:
        UserError: the text is not YAML, or too large; the message names ``where`` and the position.
    """
    try:
        require_modest(text)
        return yaml.load(text, Loader=_Loader)  # a subclass of the safe loader
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:  # from values with a tag
        raise UserError(f"{where} is not YAML: {type(error).__name__}: {error}") from None


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        UserError: the file cannot be read or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from None
    return parse_yaml(text, str(path))


def as_yaml(content: object) -> Any:
    """Return what a YAML file would give for Python's values: lists for tuples, ranges and arrays, texts for paths.

    NumPy's numbers become Python's. Values that YAML does not have stay as they are, for the caller's checks to refuse.

    >>> as_yaml({"density": (0.5, 0.2), "seed": range(2)})
    {'density': [0.5, 0.2], 'seed': [0, 1]}

    Raises:
        UserError: a container holds itself.
    """
    try:
        return _as_yaml(content)
    except RecursionError:
        raise UserError("the values lie too many levels deep: a container must not hold itself") from None


def _as_yaml(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_yaml(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_as_yaml(entry) for entry in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # NumPy's numbers and arrays; importing NumPy takes long
        return _as_yaml(value.tolist())
    return value
