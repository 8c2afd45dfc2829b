"""What a search is after, and within which bounds: columns of a trial's result, never of the test set."""

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
"""What every trial comes to. A method may report more (:attr:`trials.methods.Method.reports`)."""

EVERY_EPOCH = tuple(c for c in RESULT if not c.startswith("test_"))
"""What every epoch comes to: by these a trial may be judged before its end."""


Direction = Literal["maximize", "minimize"]


def known_column(value: str, where: str) -> str:
    """``value`` if some method reports it, as a number that is not of the test set."""
    if value.startswith("test_"):
        raise UserError(
            f"{where} is {value!r}, but selection must never see the test set: "
            "use val_accuracy; the test set's figures are reported beside it"
        )
    if COLUMNS["trials"].get(value) == TEXT:
        raise UserError(f"{where} is {value!r}, but that column holds text: name one that holds numbers")
    if value in (*EVERY_METHOD, *LATENCY):
        return value
    from trials.methods.registry import METHODS  # and torch with them: not for a report by what all of them report

    columns = {*EVERY_METHOD, *LATENCY, *(column for method in METHODS.values() for column in method.reports)}
    if value not in columns:
        raise UserError(unknown_name(where, value, columns))
    return value


def require_reported(config: TrialConfig, column: str, where: str) -> None:
    """Refuse a column that this trial does not report."""
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
    """One column to make large or small."""

    column: str
    direction: Direction


def read_objectives(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` of a space with ``objective`` and ``direction`` said as ``objectives``, each column checked."""
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
            raise UserError(f"{single} is {shown(content[single])} beside objectives, but one says it all: remove it")
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
    """The objectives of a stored space. They were checked when the sweep began: which method reports a column is not
    asked again, so that a report needs no torch.

    Raises:
        UserError: they are not of the form that this version writes.
    """
    single = {"column": space.get("objective", "val_accuracy"), "direction": space.get("direction", "maximize")}
    several = space.get("objectives") or [single]
    return tuple(validate(Objective, entry, "objectives") for entry in several)
