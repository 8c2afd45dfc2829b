"""Cells: the combinations of a grid's values. A cell's key does not depend on the order of the space file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeper.space.grid.conditions import holds
from sweeper.space.grid.grid import Axis
from sweeper.space.values import Scalar
from trials.errors import UserError

MOST_CELLS = 10_000


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
    """Return the cell with these grid values."""
    return Cell(",".join(f"{path}={key_text(values[path])}" for path in sorted(values)), dict(values))


def make_cells(grid: Mapping[str, Axis]) -> list[Cell]:
    """Return every cell in the grid's order: the last path changes fastest.

    Args:
        grid: axes by path, in an order of :func:`sweeper.space.grid.conditions.in_order`.

    Raises:
        UserError: there are more than ``MOST_CELLS``.
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
    """Return the cell with these values; paths without a value take the first value of their axis."""
    found: dict[str, Scalar] = {}
    for path, axis in grid.items():
        if holds(axis.when, found):
            found[path] = values.get(path, axis.values[0])
    return make_cell(found)


def key_text(value: Scalar) -> str:
    """Return ``value`` as it is written in a key: equal values give equal texts, different values different ones.

    >>> [key_text(value) for value in (0.2, 1.0, 1, True, None, "global", "1", "a,b")]
    ['0.2', '1', '1', 'true', 'null', 'global', '"1"', '"a,b"']
    """
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./+-]*", value):
        return json.dumps(value) if value in ("true", "false", "null") else value
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return json.dumps(value)
