"""A hyperparameter with another range in some cells: a list of distributions, each for the cells that it names.

What a good value is often depends on the grid: AdamW's learning rates are not SGD's. A cell has at most one of the
distributions, and searches as if it were the only one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from sweeper.space.distributions import Distribution, read_distribution
from sweeper.space.grid import conditions
from sweeper.space.grid.conditions import Condition
from sweeper.space.values import Scalar
from trials.errors import UserError, shown


@dataclass(frozen=True)
class Alternatives(Distribution):
    """``[{loguniform: [1, 2], when: {method: a}}, {loguniform: [3, 4], when: {method: b}}]``, with conditions on cells.

    :func:`search_at` replaces it by the one that a cell has; only this one is asked for values.
    """

    ranges: tuple[Distribution, ...]

    @property
    def conditional(self) -> bool:
        return True

    def at(self, path: str, cell: Mapping[str, Any]) -> Distribution | None:
        """Return the distribution of a cell with these grid values; None if ``path`` is not searched there.

        Raises:
            UserError: several conditions hold.
        """
        found = [i for i, one in enumerate(self.ranges) if conditions.holds(one.when, cell)]
        if len(found) > 1:
            where = ", ".join(f"{name}={value}" for name, value in cell.items())
            raise UserError(
                f"search.{path}[{found[0]}] and search.{path}[{found[1]}] both apply to the cell {where}: make their "
                "conditions exclude each other"
            )
        return self.ranges[found[0]] if found else None

    def edges(self) -> tuple[Scalar, ...]:
        return tuple(edge for one in self.ranges for edge in one.edges())

    def _around(self, numbers: Collection[float]) -> NoReturn:
        raise AssertionError("every range has values of its own")

    def branches(self, asked: Collection[Condition]) -> tuple[Scalar, ...]:
        return tuple(dict.fromkeys(value for one in self.ranges for value in one.branches(asked)))

    def points(self, most: int) -> tuple[Scalar, ...]:
        """Return the points of the range that has most; a cell whose range has fewer ends its search before."""
        return max((one.points(most) for one in self.ranges), key=len)

    def contains(self, value: object) -> bool:
        return any(one.contains(value) for one in self.ranges)

    def document(self) -> Any:
        return [one.document() for one in self.ranges]

    def _own_document(self) -> NoReturn:
        raise AssertionError("every range has a document of its own")

    def suggest(self, *_: Any) -> NoReturn:
        raise AssertionError("only the range of a cell is asked for values")

    def optuna_distribution(self) -> NoReturn:
        raise AssertionError("only the range of a cell is one of Optuna's")

    def _describe(self) -> str:
        return "; ".join(map(str, self.ranges))


def read_search_entry(content: object, where: str) -> Distribution:
    """Parse a distribution, or a list of them with conditions on cells.

    Raises:
        UserError: it is neither, or one of the list lacks a condition.
    """
    if not isinstance(content, list) or not all(isinstance(one, Mapping) for one in content):
        return read_distribution(content, where)
    if len(content) < 2:
        raise UserError(f"{where} is {shown(content)}, but a list must have two or more distributions with a when")
    ranges = tuple(read_distribution(one, f"{where}[{i}]") for i, one in enumerate(content))
    for i, one in enumerate(ranges):
        if not one.when:
            raise UserError(f"{where}[{i}] has no condition, but each of several needs one: say when, on grid paths")
    return Alternatives(ranges)


def search_at(search: Mapping[str, Distribution], cell: Mapping[str, Any]) -> dict[str, Distribution]:
    """Return the search of a cell with these grid values: of alternatives, the one that applies there, if any.

    Raises:
        UserError: several apply.
    """
    found: dict[str, Distribution] = {}
    for path, distribution in search.items():
        own = distribution.at(path, cell) if isinstance(distribution, Alternatives) else distribution
        if own is not None:
            found[path] = own
    return found
