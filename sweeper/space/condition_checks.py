"""Checks that the conditions of a space (``when:``) are on paths that it has, and hold somewhere but not everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper.space.alternatives import Alternatives, search_at
from sweeper.space.distributions import Distribution
from sweeper.space.grid import conditions
from sweeper.space.grid.cases import Case
from sweeper.space.grid.cells import Cell, make_cells
from sweeper.space.grid.conditions import Condition, Equal, When, Within
from sweeper.space.grid.grid import Axis
from sweeper.space.values import Scalar, finite_number
from trials.errors import UserError, listed, shown


def check_conditions(
    search: Mapping[str, Distribution], grid: Mapping[str, Axis], cases: Mapping[str, Case] | None = None
) -> None:
    """Check that conditions refer to searched or grid paths and to values that these can have.

    A condition on a method that is missing from the grid is allowed: a space may be run with fewer methods. Conditions
    by bounds or ``not`` must hold for some of the path's values and fail for others.

    Raises:
        UserError: a condition has an unknown path or value, or never or always holds.
    """
    for where, when in _of_cells(search, grid, cases or {}):
        for other, condition in when:
            if other not in grid:
                raise UserError(f"{where}.{other} is not in the grid, but conditions of cells must be on grid paths")
            _check_values(condition, grid[other], other, f"{where}.{other}")
    for path, distribution in search.items():
        for other, condition in distribution.when:
            where = f"search.{path}.when.{other}"
            if other not in search and other not in grid:
                raise UserError(f"{where} is neither searched nor in the grid, but conditions need a path that is")
            _check_values(condition, search[other] if other in search else grid[other], other, where)
    cells: list[Cell] = []
    for where, when in _of_cells(search, grid, cases or {}):
        if _has_bounds(when):
            cells = cells or make_cells(grid)
            _refuse_constant(when, [conditions.holds(when, cell.values) for cell in cells], where)
    for path in search:
        needed = conditions.required(search, path)
        if needed and "method" not in needed:
            cells = cells or make_cells(grid)
            if not any(_applies(search, path, cell) for cell in cells):
                said = conditions.describe(search[path].when)
                raise UserError(f"search.{path}.when never holds in any cell ({said}): change it, or remove the entry")


def _of_cells(
    search: Mapping[str, Distribution], grid: Mapping[str, Axis], cases: Mapping[str, Case]
) -> Iterator[tuple[str, When]]:
    """Yield the conditions that are on cells alone, with their paths."""
    for path, distribution in search.items():
        for i, one in enumerate(distribution.ranges if isinstance(distribution, Alternatives) else ()):
            yield f"search.{path}[{i}].when", one.when
    yield from ((f"grid.{path}.when", axis.when) for path, axis in grid.items())
    yield from ((f"cases.{name}.when", case.when) for name, case in cases.items())


def _check_values(condition: Condition, of: Axis | Distribution, other: str, where: str) -> None:
    """Check one condition against the values of the path that it is on."""
    for value in condition.values if isinstance(condition, Equal) else condition.excluded:
        if not of.contains(value) and not _is_method(other, value):
            raise UserError(f"{where} is {shown(value)}, but {other} never has that value: remove it")
    if isinstance(condition, Equal):
        return
    if condition.bounds:
        _require_numbers(of, other, where)
    if other == "method":
        return
    values = of.values if isinstance(of, Axis) else of.branches([condition])
    met = [condition.holds(value) for value in values]
    if any(met) and (not all(met) or (of.when if isinstance(of, Axis) else of.conditional)):
        return
    which = "every" if any(met) else "no"
    there = listed(map(str, of.values)) if isinstance(of, Axis) else str(of)
    raise UserError(f"{where} is {condition}, but {which} value of {other} is ({there}): change it, or remove it")


def _require_numbers(of: Axis | Distribution, other: str, where: str) -> None:
    values: tuple[Scalar, ...] = of.values if isinstance(of, Axis) else of.edges()
    for value in values:
        if finite_number(value) is None:
            raise UserError(
                f"{where} has bounds, but {other} has the value {shown(value)}, which is no number: list values, or "
                "say which it is not, as {not: VALUE}"
            )


def _has_bounds(when: When) -> bool:
    """Whether one has another form than a list of values, and none is on methods, of which a grid may lack some."""
    return any(isinstance(condition, Within) for _, condition in when) and all(other != "method" for other, _ in when)


def _refuse_constant(when: When, met: list[bool], where: str) -> None:
    if not any(met) or all(met):
        how = "always" if any(met) else "never"
        said = conditions.describe(when)
        raise UserError(f"{where} {how} holds in the cells of the grid ({said}): change it, or remove it")


def _applies(search: Mapping[str, Distribution], path: str, cell: Cell) -> bool:
    """Whether ``path`` is searched at some point of a cell."""
    here = search_at(search, cell.values)
    if path not in here:
        return False
    asked = conditions.asked_of(here)
    for other, needed in conditions.required(here, path).items():
        values: tuple[Any, ...]
        if other in here:
            values = here[other].branches(asked[other])
        else:
            values = (cell.values[other],) if other in cell.values else ()
        if not any(all(condition.holds(value) for condition in needed) for value in values):
            return False
    return True


def _is_method(path: str, value: Scalar) -> bool:
    if path != "method":
        return False
    from trials.methods.registry import METHODS  # imports torch, which reports do not need

    return value in METHODS
