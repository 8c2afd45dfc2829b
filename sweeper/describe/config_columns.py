"""Types, units and meanings of the columns that hold config fields, by the classes of all methods' configs.

Reports read them without torch, which the classes need, so they are in a file. ``python -m
sweeper.describe.config_columns`` writes it anew; a test compares it with the classes.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from sweeper.columns import CONFIG_COLUMNS_FILE, FLAG, REAL, TEXT, TYPE_NAMES, WHOLE
from sweeper.describe.meanings import meanings_of
from trials.methods.registry import METHODS

_TYPES = {bool: FLAG, int: WHOLE, float: REAL, str: TEXT}

UNITS = {
    "epochs": "epochs",
    "warmup_epochs": "epochs",
    "frozen_epochs": "epochs",
    "differential_epochs": "epochs",
    "until_epoch": "epochs",
    "rewind_epoch": "epochs",
    "patience": "epochs",
    "controller.patience": "episodes",
    "episodes": "episodes",
    "batch_size": "images",
    "score_batch_size": "images",
    "reward_images": "images",
    "images": "images",
    "image_size": "pixels",
    "checkpoint_every_s": "s",
}
"""Units of fields, by path or by the last name of it."""


def column_type(annotation: Any) -> Any:
    """Return the type of the column of a field that is declared like this.

    Whole and real numbers together are real, numbers beside anything else too: what is no number stands in a column
    beside. Whatever else is mixed is text, and so are lists, mappings and groups of fields (as JSON).
    """
    return common_type({kind for one in _alternatives(annotation) if (kind := _single_type(one)) is not None})


def common_type(kinds: Iterable[Any]) -> Any:
    """Return the type of a column whose values are declared with several types."""
    several = set(kinds)
    if len(several) == 1:
        return several.pop()
    return REAL if several & {WHOLE, REAL} else TEXT


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from _alternatives(one)
    elif origin is Literal:
        yield from (type(value) for value in get_args(annotation))
    else:
        yield annotation


def _single_type(annotation: Any) -> Any:
    return None if annotation is type(None) else _TYPES.get(annotation, TEXT)


def declared_columns() -> dict[str, dict[str, str]]:
    """Return type, unit and meaning of the column of every field of every method, as the file has them."""
    found: dict[str, list[tuple[Any, str]]] = {}
    for method in METHODS.values():
        for path, kind, meaning in _fields(method.Config):
            found.setdefault(path, []).append((kind, meaning))
    columns = {}
    for path, declared in sorted(found.items()):
        unit = UNITS.get(path) or UNITS.get(path.rpartition(".")[2])
        meanings = "; or: ".join(dict.fromkeys(meaning.rstrip(".") for _, meaning in declared if meaning))
        kind = TYPE_NAMES[common_type(kind for kind, _ in declared)]
        columns[path] = {"type": kind, **({"unit": unit} if unit else {}), "meaning": meanings}
    return columns


def _fields(config: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield path, type and meaning of a config's fields, each followed by those that it holds."""
    meanings = meanings_of(config)
    for name, info in config.model_fields.items():
        path, meaning = f"{prefix}{name}", meanings.get(name, "")
        yield path, column_type(info.annotation), meaning
        for one in _alternatives(info.annotation):
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from _fields(one, f"{path}.")
            elif get_origin(one) is dict:
                yield f"{path}.*", column_type(get_args(one)[1]), meaning


def columns_text() -> str:
    """Return the file's text."""
    lines = [f" {json.dumps(path)}: {json.dumps(one)}" for path, one in declared_columns().items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    CONFIG_COLUMNS_FILE.write_text(columns_text())
