"""Parses a space's grid (``grid:``): values or a ladder by dotted path, each with an optional condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.space.grid import conditions
from sweeper.space.grid.conditions import When
from sweeper.space.values import Scalar, scalars
from trials.errors import UserError, shown, unknown_name

LADDERS: dict[str, tuple[float, ...]] = {
    # 0.8 ** i as rounded in BiP's README (https://github.com/OPTML-Group/BiP, commit c51fc35)
    "lth": (
        *(0.8000, 0.6400, 0.5120, 0.4100, 0.3280, 0.2620, 0.2097, 0.1678, 0.1342, 0.1074, 0.0859),
        *(0.0687, 0.0550, 0.0440, 0.0350, 0.0280, 0.0225, 0.0180, 0.0144, 0.0115, 0.0092),
    ),
    "linear": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
}
"""Named lists of values for use in a grid."""


@dataclass(frozen=True)
class Axis:
    """The values of one grid path and the condition under which cells have it: ``{values: [...], when: {...}}``."""

    values: tuple[Scalar, ...]
    when: When = ()

    def contains(self, value: Scalar) -> bool:
        """Whether ``value`` is one of the values."""
        return value in self.values

    def document(self) -> list[Scalar] | dict[str, Any]:
        """Return the axis in the form of a space file."""
        values = list(self.values)
        return {"values": values, "when": conditions.document(self.when)} if self.when else values


def read_grid(content: Mapping[str, Any]) -> dict[str, Axis]:
    """Parse a grid; paths are ordered after those that their conditions depend on.

    Raises:
        UserError: a path has no valid values, or conditions form a cycle.
    """
    grid = {path: read_axis(values, f"grid.{path}") for path, values in content.items()}
    return {path: grid[path] for path in conditions.in_order(grid, "grid")}


def read_axis(content: object, where: str) -> Axis:
    """Parse the values of one grid path: a list, the name of a ladder, or either with a condition.

    Raises:
        UserError: it has another form, no values, or a value twice.
    """
    if not isinstance(content, Mapping):
        return Axis(_read_values(content, where))
    for key in content:
        if key not in ("values", "when"):
            raise UserError(unknown_name(f"{where}: key", key, ("values", "when")))
    if "values" not in content:
        raise UserError(f"{where}.values is missing: say {{values: [...], when: {{...}}}}")
    when = conditions.read_when(content["when"], f"{where}.when") if "when" in content else ()
    return Axis(_read_values(content["values"], f"{where}.values"), when)


def _read_values(content: object, where: str) -> tuple[Scalar, ...]:
    if isinstance(content, str):
        if content not in LADDERS:
            raise UserError(f"{unknown_name(where, content, LADDERS)}, or a list of values")
        return LADDERS[content]
    if not isinstance(content, (list, tuple)):
        names = ", ".join(sorted(LADDERS))
        raise UserError(f"{where} is {shown(content)}, but must be a list of values or the name of a ladder: {names}")
    return scalars(content, where)
