"""Checks whether a changed space may continue an existing sweep: it may add samples and grid values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sweeper.space.grid.cases import template
from sweeper.space.grid.cells import Cell, nearest_cell
from sweeper.space.grid.conditions import holds
from sweeper.space.options.confirm import Confirm
from sweeper.space.options.pbt import Pbt
from sweeper.space.options.replicates import Replicates
from sweeper.space.space import Space
from trials.config.stored_content import as_then
from trials.config.trial_config import WHERE
from trials.dotted_paths import leaves
from trials.errors import UserError, shown

_EQUAL = ("sampler", "seed", "objective", "direction", "objectives", "constraints", "enqueue", "pruner", "from_sweep")

_FILES = "file_hashes."


def contradictions(old: Space, new: Space, stored: Collection[Mapping[str, Any]] = ()) -> list[str]:
    """Return one line per contradiction between ``new`` and the sweep that ``old`` began; empty if it may continue.

    The trials, except for where they run, and the search must be the same. Grid values, samples, seeds of
    replicates and confirmations may be added.
    Resources, retries, concurrency and the description may change.

    Args:
        stored: contents of the sweep's committed configs, which say what the defaults were that ``old`` left out. The
            files that they name are compared by their contents, not here.
    """
    return [
        *_grid(old, new),
        *_search(old, new),
        *_fields(old, new),
        *_pbt(old.pbt, new.pbt),
        *_replicates(old.replicates, new.replicates),
        *_confirm(old.confirm, new.confirm),
        *_trial(old, new, stored),
    ]


def _fields(old: Space, new: Space) -> Iterator[str]:
    before, now = old.document(), new.document()
    for field in _EQUAL:
        if before.get(field) != now.get(field):
            yield _difference("", field, before, now)
    if new.samples < old.samples:
        yield f"samples is {new.samples}, but the sweep was begun with {old.samples}"


def _grid(old: Space, new: Space) -> Iterator[str]:
    lines = list(_axes(old, new))
    yield from lines
    if not lines:
        left = {cell.key for cell in new.cells()}
        gone = [cell.key for cell in old.cells() if cell.key not in left]
        if gone:
            yield f"grid has no cell {gone[0]} by its conditions, but the sweep was begun with it"


def _axes(old: Space, new: Space) -> Iterator[str]:
    for path, before in old.grid.items():
        if path not in new.grid:
            yield f"grid.{path} is missing, but the sweep was begun with {shown(list(before.values))}"
            continue
        now = new.grid[path].values
        gone = [value for value in before.values if value not in now]
        if gone:
            lacking = f"grid.{path} lacks {', '.join(map(str, gone))}, which the sweep has: {shown(list(now))}"
            yield f"{lacking} ({_KEPT_PATHS})" if _names_files(path) else lacking
    for path, axis in new.grid.items():
        if path not in old.grid and not axis.when:
            yield f"grid.{path} is {shown(list(axis.values))}, but the sweep was begun without it"


_KEPT_PATHS = "cells are named by the paths as given: keep them, and put moved files, or links to them, there"


def _names_files(path: str) -> bool:
    """Whether a config's field of this name names a file or a trial."""
    from trials.methods.registry import METHODS  # imports torch, which reports do not need

    return any(path in method.Config.named_files for method in METHODS.values())


def _search(old: Space, new: Space) -> Iterator[str]:
    for path in sorted({*old.search, *new.search}):
        before, now = (str(space.search[path]) if path in space.search else None for space in (old, new))
        if before is None:
            yield f"search.{path} is {now}, but the sweep was begun without it"
        elif now is None:
            yield f"search.{path} is missing, but the sweep was begun with {before}"
        elif old.search[path] != new.search[path]:
            yield f"search.{path} is {now}, but the sweep was begun with {before}"


def _pbt(old: Pbt | None, new: Pbt | None) -> Iterator[str]:
    """Yield a line per option of a population that differs; only generations may change."""
    if old is None or new is None:
        if old is not None:
            yield "pbt is missing, but the sweep was begun with it"
        if new is not None:
            yield "pbt is there, but the sweep was begun without it"
        return
    before, now = dict(old), dict(new)
    for field in before:
        if before[field] != now[field] and field != "generations":
            yield _difference("pbt.", field, before, now)


def _replicates(old: Replicates | None, new: Replicates | None) -> Iterator[str]:
    """Yield a line if points would be judged otherwise; seeds may be added, with which every point runs too."""
    before, now = ({} if one is None else {"replicates": one.document()} for one in (old, new))
    if old is None or new is None or old.values.keys() != new.values.keys():
        if before != now:
            yield _difference("", "replicates", now=now, before=before)
        return
    for option in ("judge", "race"):
        if before["replicates"][option] != now["replicates"][option]:
            yield _difference("replicates.", option, before["replicates"], now["replicates"])
    for path, values in old.values.items():
        gone = [str(value) for value in values if value not in new.values[path]]
        if gone:
            there = shown(list(new.values[path]))
            yield f"replicates.values.{path} lacks {', '.join(gone)}, which the sweep has: {there}"


def _confirm(old: Confirm | None, new: Confirm | None) -> Iterator[str]:
    """Yield a line if confirmations are gone; seeds, or the whole section, may be added."""
    if old is None:
        return
    if new is None:
        yield f"confirm is missing, but the sweep was begun with {shown(old.document())}"
        return
    gone = [str(seed) for seed in old.seed if seed not in new.seed]
    if gone:
        yield f"confirm.seed lacks {', '.join(gone)}, which the sweep has: {shown(list(new.seed))}"


def _trial(old: Space, new: Space, stored: Collection[Mapping[str, Any]]) -> list[str]:
    """Return differences of the trials' configs, defaults included, in one cell and point of each kind.

    Cells are of one kind if they have the same method, cases and paths. A point has those hyperparameters whose
    conditions hold: elsewhere, the template's value counts.
    """
    lines: dict[str, None] = {}
    cases = [*old.cases.values(), *new.cases.values()]
    examples = {
        (c.values.get("method"), *(holds(case.when, c.values) for case in cases), frozenset(c.values)): c
        for c in old.cells()
    }
    for cell in examples.values():
        there = nearest_cell(new.grid, cell.values)
        for point in {frozenset(point): point for point in old.corners(cell)}.values():
            varied = {*cell.values, *there.values, *point, *new.replicate_values()[0], "file_hashes"} | WHERE
            before, now = _effective(old, cell, point), _effective(new, there, point)
            if stored:
                varied |= {path.removeprefix(_FILES) for path in now or () if path.startswith(_FILES)}
            if before is None or now is None:  # written by another version: compare the templates as written
                before, now = dict(leaves(old.trial)), dict(leaves(new.trial))
                varied |= {*old.grid, *new.grid, *old.search, *new.search}
            for path in [*before, *(path for path in now if path not in before)]:
                fixed = not any(path == other or path.startswith(f"{other}.") for other in varied)
                same = path in before and path in now and before[path] == now[path]
                if fixed and not same and not (stored and _as_committed(old, cell, path, now, stored)):
                    lines[_difference("trial.", path, before, now)] = None
    return list(lines)


def _as_committed(
    old: Space, cell: Cell, path: str, now: Mapping[str, Any], stored: Collection[Mapping[str, Any]]
) -> bool:
    """Whether ``old`` left a field to its default, and the committed trials have it as it is written now.

    Trials of before there was the field have what was computed then (:func:`~trials.config.stored_content.as_then`).
    """
    from trials.methods.registry import METHODS  # imports torch, which reports do not need

    written = [other for other, _ in leaves(template(old.trial, old.cases, cell.values))]
    if any(path == other or path.startswith(f"{other}.") for other in written):
        return False
    named = now.get("method")
    method, known = METHODS.get(str(named)), any(content.get("method") == named for content in stored)
    found = False
    for content in stored:
        if not known or content.get("method") == named:
            then = dict(leaves(content if method is None else as_then(content, method.Config)))
            found = found or path in then
            if path in then and then[path] != now.get(path):
                return False
    return found


def _difference(section: str, path: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the line on a field that differs, or that one of the two lacks; ``section`` goes before its path."""
    is_now = f"is {shown(now[path])}" if path in now else "is missing"
    was = f"with {shown(before[path])}" if path in before else "without it"
    return f"{section}{path} {is_now}, but the sweep was begun {was}"


def _effective(space: Space, cell: Cell, point: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return every field of the trial config of a cell's point, by dotted path; None if the config is invalid."""
    try:
        config = space.config(cell, point)
    except UserError:
        return None
    return dict(leaves(config.model_dump(mode="json")))
