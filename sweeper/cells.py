"""Cells: the combinations of a grid's values. Each has a key that is the same however the space file is ordered."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeper.values import Scalar, scalars, shown
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


def make_cells(grid: Mapping[str, tuple[Scalar, ...]]) -> list[Cell]:
    """Every cell, in the grid's order: the last path changes fastest."""
    return [make_cell(dict(zip(grid, values, strict=True))) for values in itertools.product(*grid.values())]


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


def read_axis(content: object, where: str) -> tuple[Scalar, ...]:
    """The values of one path of a grid: a list, or the name of a ladder.

    Raises:
        UserError: it is neither, or has no values, or one of them twice.
    """
    if isinstance(content, str):
        if content not in LADDERS:
            raise UserError(f"{unknown_name(where, content, LADDERS)}, or a list of values")
        return LADDERS[content]
    if not isinstance(content, (list, tuple)):
        names = ", ".join(sorted(LADDERS))
        raise UserError(f"{where} is {shown(content)}, but must be a list of values or the name of a ladder: {names}")
    return scalars(content, where)
