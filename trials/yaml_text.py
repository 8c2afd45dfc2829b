"""Read YAML written by users: ``1e-4`` is a number, duplicate keys are errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from trials.errors import UserError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that reads 1e-4 as a number (YAML 1.1 requires 1.0e-4) and refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # "<<: *name"; merged keys may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int, float)):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} occurs twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text.

    Raises:
        UserError: the text is not YAML; the message names ``where`` and the position.
    """
    try:
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
