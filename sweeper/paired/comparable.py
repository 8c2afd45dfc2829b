"""Whether two sweeps can be compared, and what else differs between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sweeper.columns import config_column, config_columns
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.paired.matched_cells import SPLIT, MatchedCell, Side
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.stored_space import StoredSpace
from sweeper.results.summary import rules_of
from trials.dotted_paths import leaves
from trials.errors import UserError, listed
from trials.storage.rows import Row

FIELDS_SHOWN = 20
"""Differing fields that are printed, a line each."""

_NOT_SHOWN = {
    *("name", "about", "trial", "grid", "resources", "max_concurrent", "max_hours", "retries", "plugins"),
    *("silence_limit_s", "storage_patience_s", "callbacks"),
}
"""Sections of a space that change no result, or that are compared in another way."""

_NO_RESULT = {
    *("seed", "data_dir", "device", "checkpoint_every_s", "compile", "capture", "measure_latency"),
    *("lineage", "until_epoch"),  # what became of a population, whose settings are listed
}
"""Fields of a config that are not listed as differences."""


def require_same_objective(a: StoredSpace, b: StoredSpace) -> None:
    """Check that both sweeps choose by the same column, in the same direction.

    Raises:
        UserError: they do not.
    """
    first, second = ((o.column, o.direction) for o in (a.objectives[0], b.objectives[0]))
    if first != second:
        raise UserError(
            f"the sweeps choose their best trials by {' ('.join(first)}) and by {' ('.join(second)}): cells are "
            "comparable only if both have the same objective and direction"
        )


def why_not(cell: MatchedCell) -> str:
    """What makes the figures of a cell that both sweeps have incomparable; empty if nothing does."""
    if not (cell.a and cell.b and cell.a.rows and cell.b.rows):
        return ""
    a, b = cell.a.rows, cell.b.rows
    reasons = [_other("model", a, b, ("model",))]
    known = [[row for row in rows if row.get("data")] for rows in (a, b)]
    data = [sorted({f"{row.get(config_column('dataset'))} {row['data']}" for row in rows}) for rows in known]
    if not reasons[0] and _other("data set", a, b, ("dataset",)):
        reasons.append(_other("data set", a, b, ("dataset",)))
    elif data[0] and data[1] and data[0] != data[1]:
        reasons.append(f"other content of the data ({listed(data[0])} in A, {listed(data[1])} in B)")
    splits = [{tuple(row.get(config_column(path)) for path in SPLIT) for row in rows} for rows in (a, b)]
    if not splits[0] & splits[1]:
        reasons.append(_other("validation images", a, b, SPLIT) or "other validation images")
    return "; ".join(reason for reason in reasons if reason)


def _other(what: str, a: Sequence[Row], b: Sequence[Row], paths: Sequence[str]) -> str:
    """``other model (tiny in A, resnet20s in B)``; empty if the values are the same."""
    found = []
    for path in paths:
        texts = [_texts(row.get(config_column(path)) for row in rows) for rows in (a, b)]
        if texts[0] != texts[1]:
            name = f"{path} " if (path,) != tuple(paths) else ""
            found.append(f"{name}{texts[0]} in A, {texts[1]} in B")
    return f"other {what} ({'; '.join(found)})" if found else ""


def _texts(values: Iterable[Any]) -> str:
    return listed(dict.fromkeys(str(value) for value in sorted(set(values), key=lambda v: (str(type(v)), v))), most=4)


def protocol_lines(cells: Sequence[MatchedCell]) -> Iterator[str]:
    """Yield a line per difference in how figures came about: which epoch counts, cost, confirmations, unknown data."""
    both = [(cell.a, cell.b) for cell in cells if cell.a and cell.b and cell.a.rows and cell.b.rows]
    rules = [rules_of([row for pair in both for row in pair[side].rows]) for side in (0, 1)]
    if rules[0] != rules[1]:
        yield f"other epochs count: report is {rules[0] or 'unknown'} in A, {rules[1] or 'unknown'} in B"
    costs = [[_mean_cost(pair[side].rows) for pair in both] for side in (0, 1)]
    if costs[0] != costs[1]:
        spent = [_from_least_to_most(of_side) for of_side in costs]
        yield f"other cost: {spent[0]} in A, {spent[1]} in B (gradient evaluations per training image)"
    confirmed = [any(pair[side].confirmed for pair in both) for side in (0, 1)]
    if confirmed[0] != confirmed[1]:
        one, other = ("A", "B") if confirmed[0] else ("B", "A")
        yield f"{one} has figures of confirmations, {other} of the best trials themselves, which were chosen for them"
    unknown = [name for side, name in enumerate("AB") if any(not r.get("data") for p in both for r in p[side].rows)]
    if unknown:
        yield f"the content of the data is unknown in {' and '.join(unknown)} (written by an older version)"


def _from_least_to_most(costs: Sequence[str]) -> str:
    known = sorted(filter(None, costs), key=float)
    return " to ".join(dict.fromkeys([known[0], known[-1]])) if known else "unknown"


def _mean_cost(rows: Sequence[Row]) -> str:
    costs = [row["cost"] for row in rows if row.get("cost") is not None]
    return f"{sum(costs) / len(costs):.4g}" if costs else ""


def fields_that_differ(a: Side, b: Side, matched_by: Sequence[str]) -> list[str]:
    """A line per field of the trials, and of the spaces' other sections, that the sweeps have with other values.

    Fields that only one of them has, as of another method, are one line for each.
    """
    documents = [SweepFolder(side.tables.path).space_document() or {} for side in (a, b)]
    found = _fields_of_trials(a, b, documents, {*matched_by}) | _sections(documents)
    lines = [f"{name}: {first} in A, {second} in B" for name, (first, second) in found.items() if first and second]
    more = len(lines) - FIELDS_SHOWN
    lines = [*lines[:FIELDS_SHOWN], f"and {more} more fields"] if more > 0 else lines
    for name, side in (("A", 1), ("B", 0)):
        if alone := [field for field, texts in found.items() if not texts[side]]:
            lines.append(f"only {name} has {listed(alone, most=FIELDS_SHOWN)}")
    return lines


def _fields_of_trials(
    a: Side, b: Side, documents: Sequence[Mapping[str, Any]], matched_by: set[str]
) -> dict[str, tuple[str, str]]:
    """By field of a config, the values in each sweep as a text; empty where no trial has one."""
    written = {path for document in documents for path, _ in leaves(dict(document.get("trial") or {}))}
    names = sorted({*config_columns(), *written} - matched_by - _NO_RESULT - {"method"})
    found = {}
    for name in ("method", *names):
        column = config_column(name)
        texts = ["searched" if name in side.space.search else _texts(_values(side, column)) for side in (a, b)]
        if texts[0] != texts[1]:
            found[name] = (texts[0], texts[1])
    return found


def _values(side: Side, column: str) -> list[Any]:
    found = [row.get(column) for row in rows_of(side.tables.trials, {column})]
    return [value for value in found if value is not None]


def _sections(documents: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Sections of the two spaces beside their trials and grids, leaf by leaf."""
    flat = [
        dict(leaves({key: value for key, value in document.items() if key not in _NOT_SHOWN}, "space: "))
        for document in documents
    ]
    found = {}
    for name in dict.fromkeys([*flat[0], *flat[1]]):
        first, second = (each.get(name) for each in flat)
        if first != second and not (first in (None, [], {}) and second in (None, [], {})):
            found[name] = (_text(first), _text(second))
    return found


def _text(value: Any) -> str:
    return "none" if value in (None, [], {}) else " ".join(str(value).split())[:80]
