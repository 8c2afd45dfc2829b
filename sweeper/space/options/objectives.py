"""Objectives of a search: columns of a trial's result. Columns of the test set are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from sweeper.columns import COLUMNS, TEXT
from sweeper.space.values import mapping_entry, refuse_twins, strings
from trials.errors import UserError, shown, unknown_name
from trials.frozen import Frozen, validate
from trials.storage.rows import COMPACT, LATENCY, RESULT

if TYPE_CHECKING:
    from trials.config.trial_config import TrialConfig

EVERY_METHOD = (
    *(c for c in RESULT if not c.startswith("test_")),
    *COMPACT,
    *("dense_flops", "dense_parameters", "seconds"),
)
"""Columns of the result of every trial. Methods may report more (:attr:`trials.methods.base.Method.reports`)."""

EVERY_EPOCH = tuple(c for c in RESULT if not c.startswith("test_"))
"""Columns that are known after every epoch, by which a pruner may compare unfinished trials."""

OF_THE_MASKS = ("density", "sparsity", "kept", "macs", "flops", "parameters", *COMPACT)
"""Columns that follow from what masks keep, whatever the weights' values."""


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


def known_column(value: str, where: str, plugins: Collection[str] = ()) -> str:
    """Return ``value`` if it is a numeric column that some method reports and that is not of the test set.

    Which columns a method of ``plugins`` reports is checked with the trials (:func:`require_reported`).

    Raises:
        UserError: it is not.
    """
    refuse_test_and_text(value, where)
    if plugins or value in (*EVERY_METHOD, *LATENCY):
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
    """A column of the result and the direction in which it improves.

    Attributes:
        column: column of the result.
        direction: whether higher or lower values are better.
    """

    column: str
    direction: Direction

    @property
    def sign(self) -> int:
        """Return 1 if higher values are better, -1 if lower ones are: of values times this, the highest is the best."""
        return 1 if self.direction == "maximize" else -1


def objective_of(column: str, direction: str) -> Objective:
    """Return an objective; raises UserError if ``direction`` is neither ``maximize`` nor ``minimize``."""
    if direction not in ("maximize", "minimize"):
        raise UserError(unknown_name("direction", direction, ("maximize", "minimize")))
    return Objective(column=column, direction="maximize" if direction == "maximize" else "minimize")


def read_objectives(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a space's content with ``objective`` and ``direction`` replaced by ``objectives``, with checked columns.

    Raises:
        UserError: an objective is invalid.
    """
    rest = {key: value for key, value in content.items() if key not in ("objective", "direction", "objectives")}
    found = _parse_objectives(content)
    for where, objective in found.items():
        known_column(objective.column, where, strings(content.get("plugins")))
    return {**rest, "objectives": tuple(found.values())}


def stored_objectives(space: Mapping[str, Any]) -> tuple[Objective, ...]:
    """Parse the objectives of a stored space. Which method reports a column is not checked again: that needs torch.

    Raises:
        UserError: they are not of the form that this version writes, or of the test set.
    """
    found = _parse_objectives(space)
    for where, objective in found.items():
        refuse_test_and_text(objective.column, where)
    return tuple(found.values())


def _parse_objectives(space: Mapping[str, Any]) -> dict[str, Objective]:
    """Parse one objective or several of them, by where the space names their columns."""
    several = space.get("objectives")
    if several is None:
        column = space.get("objective", "val_accuracy")
        if not isinstance(column, str):
            raise UserError(f"objective is {shown(column)}, but must be the name of a column")
        single = {"column": column, "direction": space.get("direction", "maximize")}
        return {"objective": validate(Objective, single, "")}
    for key in ("objective", "direction"):
        if space.get(key) is not None:
            raise UserError(f"{key} is {shown(space[key])} beside objectives, but give only one: remove it")
    if not isinstance(several, (list, tuple)) or not several:
        raise UserError(f"objectives is {shown(several)}, but must be a list of {{column, direction}}")
    found: dict[str, Objective] = {}
    for i, entry in enumerate(several):
        where = f"objectives[{i}]"
        content = mapping_entry(entry, where, "{column: flops, direction: minimize}")
        found[f"{where}.column"] = validate(Objective, content, where)
    refuse_twins([objective.column for objective in found.values()], "objectives")
    return found
