"""Constraints (``constraints:``): bounds that a trial's result must satisfy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from sweeper.space.options.objectives import known_column, refuse_test_and_text
from sweeper.space.values import finite_number, mapping_entry, refuse_twins
from trials.dotted_paths import get_at
from trials.errors import UserError, shown
from trials.frozen import Frozen, validate

BOUNDS = ("target", "at_most", "at_least")


ROUNDING = 1e-9
"""Violations up to this are float error: 0.505 is within 0.005 of 0.5."""


class FieldOf(Frozen):
    """A bound taken from a field of the trial's config: ``{field: density}``.

    Attributes:
        field: dotted path of a field that holds a number.
    """

    field: str

    def value(self, config: Mapping[str, Any], where: str) -> float:
        """Return the field's value in a trial's config.

        Raises:
            UserError: the config lacks the field, or its value is no number.
        """
        try:
            current = get_at(config, self.field)
        except KeyError:
            raise UserError(
                f"{where} is {self.field!r}, but {config['method']} has no such field: name one that it has"
            ) from None
        number = finite_number(current)
        if number is None:
            raise UserError(f"{where} is {self.field!r}, but its value is {shown(current)}: name a numeric field")
        return number


class Constraint(Frozen):
    """A bound on a column of the result: ``at_most``, ``at_least``, or a ``target`` with a ``tolerance``.

    Attributes:
        column: column of the result.
        target, at_most, at_least: a number, or ``{field: PATH}`` for the value of a field of the trial's config.
        tolerance: largest allowed distance from the target in either direction, inclusive.
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
        """Name of the constraint in the study, such as ``density`` (a target), ``flops<=`` or ``val_accuracy>=``."""
        return self.column + ("" if self.target is not None else "<=" if self.at_most is not None else ">=")

    @property
    def kind(self) -> str:
        """Kind of bound: ``target``, ``at_most`` or ``at_least``."""
        return next(kind for kind in BOUNDS if getattr(self, kind) is not None)

    def limit(self, config: Mapping[str, Any], where: str = "constraints") -> float:
        """Return the bound for the trial with this config."""
        bound = getattr(self, self.kind)
        return bound.value(config, f"{where}.field") if isinstance(bound, FieldOf) else float(bound)

    def document(self) -> dict[str, Any]:
        """Return the constraint in the form of a space file."""
        content: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return content

    def violation(self, value: float, config: Mapping[str, Any]) -> float:
        """Return by how much ``value`` violates the bound, relative to its size; at most 0 if it is satisfied.

        Relative, so that violations of FLOPs and densities weigh alike where a sampler sums them. With a tolerance, the
        violation is relative to that.
        """
        limit = self.limit(config)
        if self.tolerance is not None:
            excess, scale = abs(value - limit) - self.tolerance, self.tolerance or abs(limit)
        else:
            excess, scale = value - limit if self.at_most is not None else limit - value, abs(limit)
        share = excess / (scale or 1.0)
        return share if share > ROUNDING else min(share, 0.0)


def read_constraints(content: object, plugins: Collection[str] = ()) -> tuple[Constraint, ...]:
    """Parse the constraints of a space and check their columns.

    Raises:
        UserError: one of them is invalid, or two are the same.
    """
    found = _parse_constraints(content)
    for i, constraint in enumerate(found):
        known_column(constraint.column, f"constraints[{i}].column", plugins)
    return found


def stored_constraints(space: Mapping[str, Any]) -> tuple[Constraint, ...]:
    """Parse the constraints of a stored space. Which method reports a column is not checked again: that needs torch.

    Raises:
        UserError: they are not of the form that this version writes, or of the test set.
    """
    found = _parse_constraints(space.get("constraints"))
    for constraint in found:
        refuse_test_and_text(constraint.column, "constraints")
    return found


def _parse_constraints(content: object) -> tuple[Constraint, ...]:
    if content is None:
        return ()
    if not isinstance(content, (list, tuple)):
        raise UserError(f"constraints is {shown(content)}, but must be a list of {{column, at_most: ...}}")
    found = []
    for i, entry in enumerate(content):
        where = f"constraints[{i}]"
        constraint: Constraint = validate(
            Constraint, mapping_entry(entry, where, "{column: flops, at_most: 1e6}"), where
        )
        _require_one_bound(constraint, where)
        found.append(constraint)
    refuse_twins([constraint.key for constraint in found], "constraints")
    return tuple(found)


def _require_one_bound(constraint: Constraint, where: str) -> None:
    kinds = [name for name in BOUNDS if getattr(constraint, name) is not None]
    if len(kinds) != 1:
        raise UserError(
            f"{where} has {' and '.join(kinds) or 'no bound'}, but must have one of target (with tolerance), at_most, "
            "at_least: write two constraints for two bounds"
        )
    if (constraint.target is None) != (constraint.tolerance is None):
        raise UserError(f"{where} has one of target and tolerance, but needs both: or use at_most, at_least")
