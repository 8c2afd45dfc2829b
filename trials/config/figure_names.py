"""Names of what methods add to the tables, figures and fields of configs: each needs a column of its own."""

from __future__ import annotations

from collections.abc import Collection

from trials.config.trial_config import TrialConfig
from trials.dotted_paths import leaves
from trials.errors import UserError, shown
from trials.storage.rows import BESIDE_ENDS, OF_CONFIG, RESULT, TAKEN_COLUMNS


def require_reports(reports: object, config: TrialConfig) -> None:
    """Check that the figures that a method reports have columns of their own in the tables.

    Raises:
        UserError: one has the name of a config field or of a column that every trial has.
    """
    said = f"method is {config.method!r}, whose reports"
    if not isinstance(reports, (tuple, list)):
        raise UserError(f'{said} is {shown(reports)}, but must be a tuple of column names: write ("NAME",)')
    fields = {*type(config).model_fields, *(path for path, _ in leaves(config.model_dump(mode="json")))}
    for name in reports:
        if taken := name_taken(name, TAKEN_COLUMNS["trials"] | TAKEN_COLUMNS["epochs"]):
            raise UserError(f"{said} names {shown(name)}, {taken}: rename it, or leave it out of reports")
        if name in fields and name not in RESULT:
            raise UserError(
                f"{said} names {name!r}, but a field of its config has that column in the table trials: rename the "
                "figure"
            )


def require_fields(config: TrialConfig) -> None:
    """Check that the fields of a method's config, whose mappings may have any keys, have columns of their own.

    Raises:
        UserError: two of them have one column, or a name is kept for values of other types.
    """
    said, seen = f"method is {config.method!r}, whose config has", set[str]()
    taken = TAKEN_COLUMNS["trials"].union(RESULT)
    for path, _ in leaves(config.model_dump(mode="json")):
        column = f"{OF_CONFIG}{path}" if path in taken else path
        if column in seen:
            raise UserError(f"{said} two fields whose column in the table trials is {column!r}: rename a key")
        seen.add(column)
        if end := _end_beside(path):
            raise UserError(f"{said} the field {shown(path)}, {_FOR_OTHERS.format(end)}: rename its key")


def name_taken(name: object, reserved: Collection[str]) -> str:
    """Why a figure cannot have this name; empty if it can."""
    if not isinstance(name, str) or not name or not is_unicode(name):
        return "but a column's name must be text"
    if name in reserved:
        return "but the tables have that column already"
    if name.startswith(OF_CONFIG):
        return f"but {OF_CONFIG}* is for fields of configs"
    end = _end_beside(name)
    return _FOR_OTHERS.format(end) if end else ""


_FOR_OTHERS = "but *{} is for values of another type than their column's"


def _end_beside(name: str) -> str:
    return next((end for end in BESIDE_ENDS if name.endswith(end)), "")


def is_unicode(text: str) -> bool:
    """Whether files can hold a text: it has no surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
