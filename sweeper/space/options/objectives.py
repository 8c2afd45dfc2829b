"""What a search is after, and within which bounds: columns of a trial's result, never of the test set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from optuna.trial import TrialState
from pydantic import Field, ValidationInfo, field_validator

from sweeper.columns import COLUMNS, TEXT
from sweeper.space.values import Scalar, shown
from trials.errors import UserError, unknown_name
from trials.frozen import Frozen, validate
from trials.storage.trial_folder import LATENCY, RESULT, State

if TYPE_CHECKING:
    from trials.config.trial_config import TrialConfig

EVERY_METHOD = (*(c for c in RESULT if not c.startswith("test_")), "dense_flops", "dense_parameters", "seconds")
"""What every trial comes to. A method may report more (:attr:`trials.methods.Method.reports`)."""

EVERY_EPOCH = tuple(c for c in RESULT if not c.startswith("test_"))
"""What every epoch comes to: by these a trial may be judged before its end."""

KINDS = ("target", "at_most", "at_least")

ROUNDING = 1e-9
"""0.505 is within 0.005 of 0.5, whatever floating point says."""

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
    from trials.methods import METHODS  # and torch with them: not for a report by what all of them report

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
    from trials.methods import METHODS

    columns = (*EVERY_METHOD, *METHODS[config.method].reports)
    if column not in columns:
        raise UserError(f"{where} is {column!r}, but {config.method} does not report it: {', '.join(sorted(columns))}")


class Objective(Frozen):
    """One column to make large or small."""

    column: str
    direction: Direction


class FieldOf(Frozen):
    """A number that the trial's own config says: ``{field: density}``."""

    field: str

    def value(self, config: Mapping[str, Any], where: str) -> float:
        """The field's value in a trial's config, or a UserError if it is no number there."""
        current: Any = config
        for key in self.field.split("."):
            if not isinstance(current, Mapping) or key not in current:
                raise UserError(f"{where} is {self.field!r}, but {config['method']} has no such field: name one it has")
            current = current[key]
        number = _number(current)
        if number is None:
            raise UserError(f"{where} is {self.field!r}, but that is {shown(current)} there: name a field of numbers")
        return number


class Constraint(Frozen):
    """A bound that a trial must keep to count: ``at_most``, ``at_least``, or a ``target`` with a ``tolerance``.

    Attributes:
        column: of the result.
        target: a number, or ``{field: PATH}``, the number that the trial's config has there.
        tolerance: how far from the target it may be, either way; inclusive.
    """

    column: str
    target: float | FieldOf | None = None
    tolerance: float | None = Field(default=None, ge=0)
    at_most: float | FieldOf | None = None
    at_least: float | FieldOf | None = None

    @field_validator("target", "at_most", "at_least", mode="before")
    @classmethod
    def _number_or_field(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, Mapping) and list(value) == ["field"] and isinstance(value["field"], str):
            return FieldOf(field=value["field"])
        if isinstance(value, bool) or not (value is None or isinstance(value, (int, float, FieldOf))):
            rule = "a number, or {field: PATH} for the number that the trial's config has there"
            raise ValueError(f"{info.field_name} is {shown(value)}, but must be {rule}")
        return value

    @property
    def key(self) -> str:
        """Its name in the study: ``density`` (a target), ``flops<=``, ``val_accuracy>=``."""
        return self.column + ("" if self.target is not None else "<=" if self.at_most is not None else ">=")

    @property
    def kind(self) -> str:
        """Which of the three it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    def limit(self, config: Mapping[str, Any], where: str = "constraints") -> float:
        """The bound for one trial."""
        bound = getattr(self, self.kind)
        return bound.value(config, f"{where}.field") if isinstance(bound, FieldOf) else float(bound)

    def document(self) -> dict[str, Any]:
        """As a space file says it."""
        content: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return content

    def violation(self, value: float, config: Mapping[str, Any]) -> float:
        """By how much ``value`` misses the bound, as a share of it; at most 0 where it is kept.

        As a share, so that violations of FLOPs and of densities weigh alike where a sampler adds them.
        """
        limit = self.limit(config)
        if self.tolerance is not None:
            excess, scale = abs(value - limit) - self.tolerance, self.tolerance or abs(limit)
        else:
            excess, scale = value - limit if self.at_most is not None else limit - value, abs(limit)
        share = excess / (scale or 1.0)
        return share if share > ROUNDING else min(share, 0.0)


@dataclass(frozen=True)
class Outcome:
    """What a study is told of a trial.

    Attributes:
        values: one per objective; None unless complete.
        violations: by :attr:`Constraint.key`; more than 0 is infeasible.
        curve: the objective after each epoch of the stages that may be stopped, from 1.
    """

    state: TrialState
    values: tuple[float, ...] | None = None
    violations: dict[str, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)

    @property
    def shown(self) -> float | None:
        """The first objective of a complete trial that keeps its bounds."""
        feasible = all(violation <= 0 for violation in self.violations.values())
        return self.values[0] if self.values and feasible else None


RUNNING, FAILED = Outcome(TrialState.RUNNING), Outcome(TrialState.FAIL)


def outcome_of(
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    config: Mapping[str, Any],
    state: State,
    curve: Mapping[int, float] | None = None,
) -> Outcome:
    """The outcome of a finished trial. One that lacks an objective, or a constrained column, has failed."""
    figures = {**state.result, "seconds": state.seconds}
    violations = {}
    for constraint in constraints:
        value = _number(figures.get(constraint.column))
        if value is not None:
            violations[constraint.key] = constraint.violation(value, config)
    if state.status == "pruned":
        return Outcome(TrialState.PRUNED, None, violations, dict(curve or {}))
    values = [_number(figures.get(objective.column)) for objective in objectives]
    found = tuple(value for value in values if value is not None)
    if len(found) < len(objectives) or len(violations) < len(constraints):
        return FAILED
    return Outcome(TrialState.COMPLETE, found, violations, dict(curve or {}))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


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
    _no_twins([objective.column for objective in objectives], "objectives")
    return {**rest, "objectives": objectives}


def _objective(entry: object, where: str) -> Objective:
    objective: Objective = validate(Objective, _entry(entry, where, "{column: flops, direction: minimize}"), where)
    known_column(objective.column, f"{where}.column")
    return objective


def read_constraints(content: object) -> tuple[Constraint, ...]:
    """The constraints of a space, each column checked."""
    if content is None:
        return ()
    if not isinstance(content, (list, tuple)):
        raise UserError(f"constraints is {shown(content)}, but must be a list of {{column, at_most: ...}}")
    found = []
    for i, entry in enumerate(content):
        where = f"constraints[{i}]"
        constraint: Constraint = validate(Constraint, _entry(entry, where, "{column: flops, at_most: 1e6}"), where)
        known_column(constraint.column, f"{where}.column")
        _require_one_bound(constraint, where)
        found.append(constraint)
    _no_twins([constraint.key for constraint in found], "constraints")
    return tuple(found)


def _require_one_bound(constraint: Constraint, where: str) -> None:
    kinds = [name for name in KINDS if getattr(constraint, name) is not None]
    if len(kinds) != 1:
        raise UserError(
            f"{where} has {' and '.join(kinds) or 'no bound'}, but must have one of target (with tolerance), at_most, "
            "at_least: write two constraints for two bounds"
        )
    if (constraint.target is None) != (constraint.tolerance is None):
        raise UserError(f"{where} has one of target and tolerance, but needs both: or use at_most, at_least")


def _entry(entry: object, where: str, example: str) -> Any:
    if not isinstance(entry, (Mapping, Frozen)):
        raise UserError(f"{where} is {shown(entry)}, but must be a mapping such as {example}")
    return entry


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} is {shown(value)}, but must be the name of a column")
    return value


def _no_twins(names: Sequence[Scalar], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where} has {name} twice, but must have each once: remove one")
