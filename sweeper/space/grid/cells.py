"""Cells: the combinations of a grid's values. Each has a key that is the same however the space file is ordered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.space.grid import conditions
from sweeper.space.grid.conditions import When, holds
from sweeper.space.values import Scalar, scalars, shown
from trials.errors import UserError, unknown_name

LADDERS: dict[str, tuple[float, ...]] = {
    # 0.8 ** i as BiP's README rounds it (https://github.com/OPTML-Group/BiP; spec bip, section 6)
    "lth": (
        *(0.8000, 0.6400, 0.5120, 0.4100, 0.3280, 0.2620, 0.2097, 0.1678, 0.1342, 0.1074, 0.0859),
        *(0.0687, 0.0550, 0.0440, 0.0350, 0.0280, 0.0225, 0.0180, 0.0144, 0.0115, 0.0092),
    ),
    "linear": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
}
"""Lists of values that have a name, for a grid to use."""


MOST_CELLS = 10_000


@dataclass(frozen=True)
class Axis:
    """The values of one path of a grid, and in which cells it is there at all: ``{values: [...], when: {...}}``."""

    values: tuple[Scalar, ...]
    when: When = ()

    def contains(self, value: Scalar) -> bool:
        """Whether it is one of the values."""
        return value in self.values

    def document(self) -> list[Scalar] | dict[str, Any]:
        """As a space file says it."""
        values = list(self.values)
        return {"values": values, "when": conditions.document(self.when)} if self.when else values


@dataclass(frozen=True)
class Cell:
    """One combination of grid values.

    Attributes:
        key: its name, such as ``density=0.2,seed=0``: paths in alphabetical order, values in their shortest form;
            empty for the one cell of a space without a grid.
        values: by dotted path, in the grid's order.
    """

    key: str
    values: dict[str, Scalar] = field(compare=False)


def make_cell(values: Mapping[str, Scalar]) -> Cell:
    """The cell of these values."""
    return Cell(",".join(f"{path}={text(values[path])}" for path in sorted(values)), dict(values))


def make_cells(grid: Mapping[str, Axis]) -> list[Cell]:
    """Every cell, in the grid's order: the last path changes fastest. ``grid`` is in an order of
    :func:`sweeper.space.grid.conditions.in_order`.

    Raises:
        UserError: there are too many.
    """
    found: list[dict[str, Scalar]] = [{}]
    for path, axis in grid.items():
        there = [holds(axis.when, values) for values in found]
        count = sum(len(axis.values) if each else 1 for each in there)
        if count > MOST_CELLS:
            more = "" if path == list(grid)[-1] else " or more"
            raise UserError(
                f"grid has {count}{more} cells, but must have at most {MOST_CELLS}: split it into several spaces"
            )
        found = [
            new
            for values, each in zip(found, there, strict=True)
            for new in ([{**values, path: value} for value in axis.values] if each else [values])
        ]
    return [make_cell(values) for values in found]


def nearest_cell(grid: Mapping[str, Axis], values: Mapping[str, Scalar]) -> Cell:
    """The cell with these values; of what they leave open, the first of the grid's."""
    found: dict[str, Scalar] = {}
    for path, axis in grid.items():
        if holds(axis.when, found):
            found[path] = values.get(path, axis.values[0])
    return make_cell(found)


def text(value: Scalar) -> str:
    """``value`` as it stands in a key: equal values give equal texts, and others never do.

    >>> [text(value) for value in (0.2, 1.0, 1, True, None, "global", "1", "a,b")]
    ['0.2', '1', '1', 'true', 'null', 'global', '"1"', '"a,b"']
    """
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./+-]*", value):
        return json.dumps(value) if value in ("true", "false", "null") else value
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return json.dumps(value)


def read_grid(content: Mapping[str, Any]) -> dict[str, Axis]:
    """A grid by its paths, each after those that its condition is about.

    Raises:
        UserError: a path has no values, or conditions go in a circle.
    """
    grid = {path: read_axis(values, f"grid.{path}") for path, values in content.items()}
    return {path: grid[path] for path in conditions.in_order(grid, "grid")}


def read_axis(content: object, where: str) -> Axis:
    """The values of one path of a grid: a list, the name of a ladder, or either with a condition.

    Raises:
        UserError: it is neither, or has no values, or one of them twice.
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
