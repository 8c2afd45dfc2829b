"""Objectives of a search: columns of a trial's result. Columns of the test set are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sweeper.columns import COLUMNS, TEXT
from sweeper.space.values import mapping_entry, refuse_twins
from trials.errors import UserError, shown, unknown_name
from trials.frozen import Frozen, validate
from trials.storage.rows import LATENCY, RESULT

if TYPE_CHECKING:
    from trials.config.trial_config import TrialConfig

EVERY_METHOD = (*(c for c in RESULT if not c.startswith("test_")), "dense_flops", "dense_parameters", "seconds")
"""Columns of the result of every trial. Methods may report more (:attr:`trials.methods.base.Method.reports`)."""

EVERY_EPOCH = tuple(c for c in RESULT if not c.startswith("test_"))
"""Columns that are known after every epoch, by which a pruner may compare unfinished trials."""


Direction = Literal["maximize", "minimize"]


def refuse_test_and_text(value: str, where: str) -> None:
    """Refuse a column of the test set, and one that holds text. Imports no torch.

    Raises:
        UserError: ``value`` is such a column.
    """
    if value.startswith("test_"):
        raise UserError(
            f"{where} is {value!r}, but selection must never see the test set: "
            "use val_accuracy; the test set's figures are reported beside it"
        )
    if COLUMNS["trials"].get(value) == TEXT:
        raise UserError(f"{where} is {value!r}, but that column holds text: name one that holds numbers")


def known_column(value: str, where: str) -> str:
    """Return ``value`` if it is a numeric column that some method reports and that is not of the test set.

    Raises:
        UserError: it is not.
    """
    refuse_test_and_text(value, where)
    if value in (*EVERY_METHOD, *LATENCY):
        return value
    from trials.methods.registry import METHODS  # imports torch, which common columns do not need

    columns = {*EVERY_METHOD, *LATENCY, *(column for method in METHODS.values() for column in method.reports)}
    if value not in columns:
        raise UserError(unknown_name(where, value, columns))
    return value


def require_reported(config: TrialConfig, column: str, where: str) -> None:
    """Check that a trial with this config reports the column.

    Raises:
        UserError: it does not.
    """
    if column in LATENCY:
        if not config.measure_latency:
            raise UserError(
                f"{where} is {column!r}, but the trial measures no latency: set measure_latency: true in trial"
            )
        return
    from trials.methods.registry import METHODS

    columns = (*EVERY_METHOD, *METHODS[config.method].reports)
    if column not in columns:
        raise UserError(f"{where} is {column!r}, but {config.method} does not report it: {', '.join(sorted(columns))}")


class Objective(Frozen):
    """A column of the result and the direction in which it improves."""

    column: str
    direction: Direction


def read_objectives(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space's content with ``objective`` and ``direction`` replaced by ``objectives``, with checked columns.

    Raises:
        UserError: an objective is invalid.
    """
    rest = {key: value for key, value in content.items() if key not in ("objective", "direction", "objectives")}
    several = content.get("objectives")
    if several is None:
        column = _text(content.get("objective", "val_accuracy"), "objective")
        known_column(column, "objective")
        direction = content.get("direction", "maximize")
        if direction not in ("maximize", "minimize"):
            raise UserError(f"direction is {shown(direction)}, but must be 'maximize' or 'minimize'")
        return {**rest, "objectives": (Objective(column=column, direction=direction),)}
    for single in ("objective", "direction"):
        if content.get(single) is not None:
            raise UserError(f"{single} is {shown(content[single])} beside objectives, but give only one: remove it")
    if not isinstance(several, (list, tuple)) or not several:
        raise UserError(f"objectives is {shown(several)}, but must be a list of {{column, direction}}")
    objectives = tuple(_objective(entry, f"objectives[{i}]") for i, entry in enumerate(several))
    refuse_twins([objective.column for objective in objectives], "objectives")
    return {**rest, "objectives": objectives}


def _objective(entry: object, where: str) -> Objective:
    objective: Objective = validate(
        Objective, mapping_entry(entry, where, "{column: flops, direction: minimize}"), where
    )
    known_column(objective.column, f"{where}.column")
    return objective


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} is {shown(value)}, but must be the name of a column")
    return value


def stored_objectives(space: Mapping[str, Any]) -> tuple[Objective, ...]:
    """Parse the objectives of a stored space. Which method reports a column is not checked again: that needs torch.

    Raises:
        UserError: they are not of the form that this version writes, or of the test set.
    """
    single = {"column": space.get("objective", "val_accuracy"), "direction": space.get("direction", "maximize")}
    several = space.get("objectives") or [single]
    if not isinstance(several, (list, tuple)):
        raise UserError(f"objectives is {shown(several)}, but must be a list of {{column, direction}}")
    found: list[Objective] = []
    for entry in several:
        found.append(
            validate(Objective, mapping_entry(entry, "objectives", "{column: flops, direction: minimize}"), "")
        )
        refuse_test_and_text(found[-1].column, "objective")
    return tuple(found)
