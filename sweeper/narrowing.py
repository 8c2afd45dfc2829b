"""May a space continue the sweep that another began? It may add samples and grid values, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sweeper.cells import make_cell
from sweeper.distributions import corners
from sweeper.pbt import narrowed
from sweeper.values import Scalar, shown
from trials.config import WHERE
from trials.errors import UserError

if TYPE_CHECKING:
    from sweeper.space import Space

_EQUAL = ("sampler", "seed", "objective", "direction", "objectives", "constraints", "enqueue", "pruner", "from_sweep")


def narrowing(old: Space, new: Space) -> list[str]:
    """A line for each way in which ``new`` contradicts the sweep that ``old`` began; empty where it may continue it.

    Trials must be the same but for where they run, as must the search; grids may gain values, and samples may be
    added. Resources, retries, concurrency and description may change.
    """
    return [*_grid(old, new), *_search(old, new), *_fields(old, new), *narrowed(old.pbt, new.pbt), *_trial(old, new)]


def _fields(old: Space, new: Space) -> Iterator[str]:
    before, now = old.document(), new.document()
    for field in _EQUAL:
        if before.get(field) != now.get(field):
            is_now = f"is {shown(now[field])}" if field in now else "is missing"
            was = f"with {shown(before[field])}" if field in before else "without it"
            yield f"{field} {is_now}, but the sweep was begun {was}"
    if new.samples < old.samples:
        yield f"samples is {new.samples}, but the sweep was begun with {old.samples}"


def _grid(old: Space, new: Space) -> Iterator[str]:
    for path, values in old.grid.items():
        if path not in new.grid:
            yield f"grid.{path} is missing, but the sweep was begun with {shown(list(values))}"
            continue
        gone = [value for value in values if value not in new.grid[path]]
        if gone:
            yield f"grid.{path} lacks {', '.join(map(str, gone))}, which the sweep has: {shown(list(new.grid[path]))}"
    for path, values in new.grid.items():
        if path not in old.grid:
            yield f"grid.{path} is {shown(list(values))}, but the sweep was begun without it"


def _search(old: Space, new: Space) -> Iterator[str]:
    for path in sorted({*old.search, *new.search}):
        before, now = (str(space.search[path]) if path in space.search else None for space in (old, new))
        if before is None:
            yield f"search.{path} is {now}, but the sweep was begun without it"
        elif now is None:
            yield f"search.{path} is missing, but the sweep was begun with {before}"
        elif old.search[path] != new.search[path]:
            yield f"search.{path} is {now}, but the sweep was begun with {before}"


def _trial(old: Space, new: Space) -> list[str]:
    """Differences of what the templates come to, defaults included; once for each method the old grid has."""
    varied = {*old.grid, *old.search, *new.grid, *new.search}
    lines: dict[str, None] = {}
    for values in {cell.values.get("method"): cell.values for cell in old.cells()}.values():
        before, now = _effective(old, values), _effective(new, values)
        if before is None or now is None:  # one was written for another version: compare what they say
            before, now = dict(leaves(old.trial)), dict(leaves(new.trial))
        for path in [*before, *(path for path in now if path not in before)]:
            fixed = not any(path == other or path.startswith(f"{other}.") for other in varied | WHERE)
            if fixed and (path not in before or path not in now or before[path] != now[path]):
                lines[_difference(path, before, now)] = None
    return list(lines)


def _difference(path: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    is_now = f"is {shown(now[path])}" if path in now else "is missing"
    was = f"with {shown(before[path])}" if path in before else "without it"
    return f"trial.{path} {is_now}, but the sweep was begun {was}"


def _effective(space: Space, values: Mapping[str, Scalar]) -> dict[str, Any] | None:
    """Every field of the space's trial at these grid values, where it has such paths; None if it is no trial."""
    cell = make_cell({path: values.get(path, own[0]) for path, own in space.grid.items()})
    try:
        config = space.config(cell, corners(space.search, cell.values)[0])
    except UserError:
        return None
    return dict(leaves(config.model_dump(mode="json")))


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a config by its dotted path."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
