"""Which columns of a Parquet file hold the images and the labels, and what the classes are called."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trials.errors import DataError

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
_LABELS = "labels (integers, whole numbers, booleans or text)"
_IMAGES = "encoded images (binary, or a struct with 'bytes')"
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the column of a table's index

LabelKind = Literal["integer", "float", "bool", "text"]


@dataclass(frozen=True)
class Wanted:
    """Which columns to read. A column that is named must be there; otherwise it is found by usual name and type.

    Attributes:
        image_column: name of the image column; None finds it.
        label_column: name of the label column; None finds it.
        label_names: usual names of the label column, in order of preference.
    """

    image_column: str | None = None
    label_column: str | None = None
    label_names: tuple[str, ...] = LABEL_NAMES


@dataclass(frozen=True)
class Columns:
    """The columns of one file.

    Attributes:
        image: name of the image column, a struct with ``bytes`` or, if ``plain``, binary.
        label: name of the label column.
        kind: what the labels are.
        class_names: the classes' names in order of their labels; empty if the file does not name them.
        images: names of all columns that could hold images.
    """

    image: str
    plain: bool
    label: str
    kind: LabelKind
    class_names: tuple[str, ...]
    images: tuple[str, ...]


def find_columns(file: Path, schema: Any, wanted: Wanted) -> Columns:
    """Find the columns by the file's ``pyarrow.Schema``.

    Raises DataError for a column that is missing, of a wrong type, or one of several that could be meant; and for class
    names that are unreadable or not all different.
    """
    metadata = schema.metadata or {}
    features = _features(file, metadata)
    image = _image_column(file, schema, wanted)
    label = _label_column(file, schema, wanted, features)
    for column in (image, label):
        if schema.names.count(column) > 1:
            raise DataError(f"{file} has several columns named {column!r}, but must have one: rename the others")
    kind = _label_kind(schema.field(label).type)
    assert kind is not None
    names = _class_names(file, metadata, features.get(label))
    images = tuple(field.name for field in schema if _is_image(field.type))
    return Columns(image, _is_binary(schema.field(image).type), label, kind, names, images)


def few(names: Sequence[str]) -> str:
    """The first names, quoted, and how many more there are; for messages."""
    return ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_image(kind: Any) -> bool:
    import pyarrow.types as types

    if not types.is_struct(kind):
        return _is_binary(kind)
    position = kind.get_field_index("bytes")
    return position >= 0 and _is_binary(kind.field(position).type)


def _label_kind(kind: Any) -> LabelKind | None:
    """What labels of this Arrow type are; None if it holds no labels."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _label_kind(kind.value_type)
    if types.is_boolean(kind):
        return "bool"
    if types.is_integer(kind):
        return "integer"
    if types.is_floating(kind):
        return "float"
    return "text" if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) else None


def _image_column(file: Path, schema: Any, wanted: Wanted) -> str:
    if wanted.image_column is not None:
        return _named(file, schema, "image_column", wanted.image_column, _is_image, _IMAGES)
    found = [field.name for field in schema if _is_image(field.type)]
    structs = [field.name for field in schema if field.name in found and not _is_binary(field.type)]
    return _choose(file, "image", "structs with 'bytes', or binary", structs or found, IMAGE_NAMES)


def _label_column(file: Path, schema: Any, wanted: Wanted, features: Mapping[str, Any]) -> str:
    if wanted.label_column is not None:
        return _named(file, schema, "label_column", wanted.label_column, _label_kind, _LABELS)
    kinds = {field.name: _label_kind(field.type) for field in schema}
    usual = [name for name in wanted.label_names if name in kinds]
    if usual:
        usable = [name for name in usual if kinds[name]]
        return _named(file, schema, "label_column", (usable or usual)[0], _label_kind, _LABELS)
    found = [name for name, kind in kinds.items() if kind in ("integer", "bool", "text") and not _INDEX.fullmatch(name)]
    marked = [name for name in found if _entry(features.get(name)).get("_type") == "ClassLabel"]
    return _choose(file, "label", "integers, booleans or text", marked or found, wanted.label_names)


def _named(file: Path, schema: Any, option: str, name: str, fits: Callable[[Any], object], what: str) -> str:
    """Return ``name``. Raises DataError unless the file has such a column and its type fits."""
    if name not in schema.names:
        raise DataError(f"{option} is {name!r}, but {file} has the columns {', '.join(schema.names)}: name one of them")
    kind = schema.field(schema.names.index(name)).type
    if not fits(kind):
        raise DataError(
            f"{file} has in its column {name!r} values of type {kind}, but they must be {what}: convert them, or name "
            f"another column as {option} (data set 'parquet')"
        )
    return name


def _choose(file: Path, kind: str, types: str, candidates: list[str], names: Sequence[str]) -> str:
    for name in names:
        if name in candidates:
            return name
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise DataError(f"{file} has no column that could hold {kind}s ({types}), but must have one: add it")
    raise DataError(
        f"{file} has several columns that could hold {kind}s ({types}): {', '.join(candidates)}; none of them is "
        f"called {' or '.join(names)}, so name the right one as {kind}_column (data set 'parquet')"
    )


def _features(file: Path, metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """Hugging Face's features of the columns by name, empty if the file has none."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    except (ValueError, AttributeError) as error:
        raise _unreadable(file, error) from error
    return _entry(features)


def _entry(feature: Any) -> Mapping[str, Any]:
    return feature if isinstance(feature, Mapping) else {}


def _class_names(file: Path, metadata: Mapping[bytes, bytes], feature: Any) -> tuple[str, ...]:
    """Class names from Hugging Face's feature of the label column, or from a JSON list ``class_names``.

    Raises DataError if there are both and they differ, and for names that are unreadable or not all different.
    """
    try:
        listed = _as_names(json.loads(metadata.get(b"class_names", b"[]")))
        names = _as_names(_entry(feature).get("names") or [])
    except (ValueError, TypeError) as error:
        raise _unreadable(file, error) from error
    if listed and names and listed != names:
        raise DataError(
            f"{file} names its classes {few(names)} in Hugging Face's features and {few(listed)} as 'class_names', "
            "but both must be the same: remove one of them from its metadata"
        )
    found = names or listed
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise DataError(
            f"{file} has several classes named {few(twice)}, but names must differ: write its metadata again"
        )
    return found


def _as_names(value: Any) -> tuple[str, ...]:
    """Class names of a list, or of a mapping from "0", "1", ... Raises ValueError for anything else."""
    if isinstance(value, Mapping):
        if value.keys() != {str(label) for label in range(len(value))}:
            raise ValueError("they are numbered, but not 0..C-1")
        value = [value[str(label)] for label in range(len(value))]
    if not isinstance(value, list) or not all(isinstance(name, str | int) for name in value):
        raise ValueError(f"{str(value)[:40]!r} is no list of names")
    return tuple(map(str, value))


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} has metadata with unreadable class names: write it again ({error})")
