"""Which grid paths make the series of a comparison, so that a line joins points that differ in their density alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from sweeper.results.cell_trials import CellTrials
from sweeper.results.comparison import density_of_all
from sweeper.results.frames import SweepTables
from sweeper.results.stored_space import StoredSpace

_SAME = 0.01
"""Densities closer than this share of the larger one do not tell two cells apart: budgets are rounded to units."""

_Cell = Mapping[str, Any]


def series_paths(sweep: SweepTables, space: StoredSpace, cells: Sequence[CellTrials]) -> list[str]:
    """The grid paths whose values make a series: the method, and what else differs but for a ladder of densities.

    A method's ladder is ``density``, or else the numeric path, such as ``prune_fraction`` or ``stage_pr``, by which
    cells that are otherwise equal get different densities; of several such paths, the one with the most values.
    """
    paths = [path for path in space.paths if path != "seed"]
    measured = density_of_all(sweep)
    groups: dict[str, list[tuple[_Cell, float | None]]] = {}
    for cell in cells:
        there = {path: value for path, value in zip(paths, cell.group, strict=True) if value is not None}
        known = [measured[row["trial"]] for row in cell.figures if row["trial"] in measured]
        density = sum(known) / len(known) if known else None
        groups.setdefault(str(there.get("method")), []).append((there, density))
    ladders, differing = set(), set()
    for mine in groups.values():
        varying = [path for path in paths if len({str(there.get(path)) for there, _ in mine}) > 1]
        ladder = _ladder(varying, mine)
        ladders |= {ladder}
        differing |= {path for path in varying if path != ladder}
    method = ["method"] if "method" in paths and len(groups) > 1 else []
    return method + [path for path in paths if path in differing - ladders and path != "method"]


def _ladder(varying: Sequence[str], cells: Sequence[tuple[_Cell, float | None]]) -> str | None:
    if "density" in varying:
        return "density"
    found = {path: len({str(there.get(path)) for there, _ in cells}) for path in varying if _sets_density(path, cells)}
    return max(found, key=lambda path: found[path], default=None)


def _sets_density(path: str, cells: Iterable[tuple[_Cell, float | None]]) -> bool:
    """Whether a path has numbers, or lists of them, and cells that differ in it alone have different densities."""
    groups: dict[str, list[tuple[str, float]]] = {}
    for there, density in cells:
        if path in there and not _numeric(there[path]):
            return False
        if path in there and density is not None:
            others = str({name: value for name, value in there.items() if name != path})
            groups.setdefault(others, []).append((str(there[path]), density))
    pairs = [(a, b) for found in groups.values() for a, b in pairwise(found) if a[0] != b[0]]
    return bool(pairs) and all(abs(a[1] - b[1]) > _SAME * max(a[1], b[1]) for a, b in pairs)


def _numeric(value: object) -> bool:
    listed = isinstance(value, str) and value.startswith("[") and not any(letter.isalpha() for letter in value)
    return listed or (isinstance(value, (int, float)) and not isinstance(value, bool))
