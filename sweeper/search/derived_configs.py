"""Derives the config of every committed sample anew from the space, and compares it with the trial's ``config.json``.

A space says little of what its trials compute: defaults, and fields that other fields fill, come from the code. So a
changed space is compared with what the trials really were. Compared are the name and every field of the content, except
for fields that say where a trial runs. A field that a stored config lacks counts as its default, because a new field
must not change what earlier configs compute.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.folder.confirmations import confirmation_of
from sweeper.folder.packed_records import in_search_order
from sweeper.folder.replicates import replicate_of, values_set
from sweeper.folder.sweep_folder import Record, Sample
from sweeper.search.cells.population import CellPopulation
from sweeper.search.outcomes import RUNNING
from sweeper.space.grid.cases import template
from sweeper.space.grid.cells import Cell
from sweeper.space.space import Space
from trials.config.revisions import revised_parts
from trials.config.stored_content import ABSENT, NO_CONTENT, differing_fields
from trials.config.trial_config import TrialConfig
from trials.dotted_paths import leaves
from trials.errors import UserError, shown


@dataclass
class Compared:
    """What the comparison of a sweep's trials with a space has found.

    Attributes:
        difference: the first field of the first trial that differs, as a line with a way out; None if none does.
        revised: which revision a trial was made with and which this code computes, and why; None if all are equal.
        unhashed: files that trials were made from before files were hashed: whether they have changed is not known.
    """

    difference: str | None = None
    revised: str | None = None
    unhashed: tuple[str, ...] = ()


def compare_committed(
    space: Space,
    records: Mapping[str, Record] | Iterable[Record],
    written_first: frozenset[str] | None = None,
) -> Compared:
    """Compare every committed sample's config with what the space says; stop at the first difference.

    Args:
        records: those of the sweep; by trial id, each is looked up when its sample's turn comes.
        written_first: paths that the template wrote when the sweep was begun, None if unknown. A value that was a
            default then and is written now keeps the trials' names as they are.
    """
    found, unhashed = Compared(), dict[str, None]()
    try:
        by_id = records if isinstance(records, Mapping) else {record.id: record for record in records}
        for record, sample, config in _derived(space, by_id):
            stored = {key: value for key, value in record.content.items() if key not in NO_CONTENT}
            if stored != config.model_dump(mode="json", exclude=NO_CONTENT) or config.file_hashes:
                _compare_content(space, record, sample, config)
            if record.id not in _names(record, config):
                added = _since_written(space, sample, written_first)
                if record.id not in _names(record, config, added):
                    raise _Differs(_other_name(record, config))
            hashed = record.content.get("file_hashes") or {}
            unhashed |= {f"{record.content.get(name)}": None for name in config.file_hashes if name not in hashed}
            if found.revised is None and config.revisions != record.stored.revisions:
                found.revised = _revised(record, config)
    except _Differs as difference:
        found.difference = str(difference)
    found.unhashed = tuple(unhashed)
    return found


class _Differs(Exception):
    """A trial is not what the space says now; the message is the line."""


def _derived(space: Space, records: Mapping[str, Record]) -> Iterator[tuple[Record, Sample, TrialConfig]]:
    """Yield every sample with its record and the config that the space gives it.

    A segment whose ancestor's record is lost is left out: what it continues is not known.
    """
    order = in_search_order(records)
    cells = {cell.key: cell for cell in space.cells()}
    lineages = _Lineages(space, (records[trial_id].samples[place] for trial_id, place in order), cells)
    numbered = _Numbered(space)
    for trial_id, place in order:
        record = records[trial_id]
        sample = record.samples[place]
        cell = cells.get(sample.cell)
        if cell is None:
            raise _Differs(f"grid has no cell {sample.cell}, but {record.id} was made for it: restore the grid")
        if sample.grid != cell.values:
            raise _Differs(
                f"{record.id} is of cell {sample.cell}, but its config.json has the grid values {shown(sample.grid)}: "
                "restore the file, or move the trial's folder away"
            )
        _require_confirmed(space, record, sample)
        _require_replicate(space, record, sample)
        numbered.require_own(record, sample)
        try:
            config = lineages.config(cell, sample)
        except UserError as error:
            raise _Differs(f"{record.id} cannot be derived from the space ({error})") from None
        if config is not None:
            yield record, sample, config


def _require_confirmed(space: Space, record: Record, sample: Sample) -> None:
    """Raises _Differs if a sample is a confirmation that the space does not ask for."""
    confirmation = confirmation_of(sample)
    if confirmation is not None and (space.confirm is None or confirmation.values not in space.confirm.points()):
        values = ", ".join(f"{path}={value}" for path, value in confirmation.values.items()) or "nothing"
        raise _Differs(
            f"{record.id} confirms {confirmation.trial} with {values}, but confirm has no such value: add it"
        )


def _require_replicate(space: Space, record: Record, sample: Sample) -> None:
    """Raises _Differs if a sample of the search is no replicate that the space asks for."""
    if confirmation_of(sample) is None:
        found = replicate_of(sample)
        values = {} if found is None else found.values
        if values not in space.replicate_values():
            which = ", ".join(f"{path}={value}" for path, value in values.items()) or "no replicate"
            raise _Differs(
                f"{record.id} was made as {which} of its point, but replicates has no such value: restore it"
            )


class _Numbered:
    """The numbers that samples have had, to tell trials that were copied here from another sweep."""

    def __init__(self, space: Space) -> None:
        self._most = space.samples
        self._at: tuple[str, int] | None = None
        self._of: dict[str, Record] = {}  # by what tells samples of this number apart

    def require_own(self, record: Record, sample: Sample) -> None:
        """Raises _Differs if the search has no such number, or has given it to another trial. Call in their order."""
        at = f" of cell {sample.cell}" if sample.cell else ""
        if sample.number not in range(self._most):
            raise _Differs(
                f"{record.folder.path} is sample {sample.number}{at}, but samples is {self._most}: "
                "move the folder of a trial that is another sweep's away"
            )
        if self._at != (sample.cell, sample.number):
            self._at, self._of = (sample.cell, sample.number), {}
        replicate, confirmation = replicate_of(sample), confirmation_of(sample)
        told_apart = repr((replicate and sorted(replicate.values.items()), confirmation))
        other = self._of.setdefault(told_apart, record)
        if other.id != record.id:
            raise _Differs(
                f"{other.folder.path} and {record.folder.path} are both sample {sample.number}{at}: "
                "move the folder of the one that is another sweep's away"
            )


class _Lineages:
    """The configs of samples; those of populations continue the configs of their parents, not what was committed."""

    def __init__(self, space: Space, samples: Iterable[Sample], cells: Mapping[str, Cell]) -> None:
        self.space = space
        self._searches: dict[str, CellPopulation] = {}
        self._numbers: set[tuple[str, int]] = set()
        for sample in samples if space.pbt is not None else ():
            if sample.cell in cells and "pbt" in sample.attrs:
                assert space.pbt is not None
                search = self._searches.setdefault(sample.cell, CellPopulation(space, cells[sample.cell], space.pbt))
                search.replay(sample, RUNNING)
                before = self._before(sample)
                if before is None or (sample.cell, before) in self._numbers:  # samples come in the order of numbers
                    self._numbers.add((sample.cell, sample.number))

    def _before(self, sample: Sample) -> int | None:
        """Number of the sample that this one continues; None in the first generation."""
        assert self.space.pbt is not None
        parent = sample.attrs["pbt"].get("parent")
        first = (sample.number // self.space.pbt.population - 1) * self.space.pbt.population
        return None if parent is None else first + int(parent)

    def config(self, cell: Cell, sample: Sample) -> TrialConfig | None:
        if self.space.pbt is None:
            return self.space.config(cell, values_set(sample))
        known = (cell.key, sample.number) in self._numbers
        return self._searches[cell.key].config(sample) if known else None


def _compare_content(space: Space, record: Record, sample: Sample, config: TrialConfig) -> None:
    """Compare field by field.

    Raises:
        _Differs: a field differs.
    """
    hashes = record.content.get("file_hashes") or {}
    for name, digest in config.file_hashes.items():
        if name in hashes and hashes[name] != digest:
            raise _Differs(
                f"trial.{name} is {getattr(config, name)}, but it has changed since the sweep began: its content has "
                f"the hash {digest}, {record.id} was made from {hashes[name]}: restore the file"
            )
    moved = {name for name, digest in config.file_hashes.items() if hashes.get(name) == digest}
    for path, before, now in differing_fields(record.content, config):
        if path in moved or (path in config.file_hashes and _one_place(before, now)):
            continue
        raise _Differs(_other_field(space, record, sample, path, before, now))


def _one_place(before: Any, now: Any) -> bool:
    """Whether two paths lead to one place; older versions stored them as written."""
    if not isinstance(before, str) or not isinstance(now, str):
        return False
    one, other = (os.path.normpath(Path(path).expanduser().absolute()) for path in (before, now))
    return one == other


def _written(space: Space, values: Mapping[str, Any]) -> list[str]:
    """Paths that the template of a cell writes, with those of its cases."""
    return [path for path, _ in leaves(template(space.trial, space.cases, values))]


def covers(written: Iterable[str], path: str) -> bool:
    """Whether one of the ``written`` paths is ``path`` or holds it."""
    return any(path == other or path.startswith(f"{other}.") for other in written)


def _other_field(space: Space, record: Record, sample: Sample, path: str, before: Any, now: Any) -> str:
    """Return the line on a field that a trial has with another value than the space gives it now."""
    at = f" ({sample.cell})" if sample.cell else ""
    if before is ABSENT:
        return f"trial.{path} is {shown(now)}, but {record.id}{at} is of a version that had no such field: leave it out"
    line = f"trial.{path} is {shown(now)}, but {record.id}{at} was made with {shown(before)}: "
    if covers([*_written(space, sample.grid), *sample.grid, *sample.params], path):
        return f"{line}restore what it had"
    value = "null" if before is None else str(before).lower() if isinstance(before, bool) else before
    return f"{line}the default has changed from {shown(before)} to {shown(now)}: set trial.{path}={value}"


def _since_written(space: Space, sample: Sample, first: frozenset[str] | None) -> frozenset[str]:
    """Paths whose values the template writes now, but did not when the sweep was begun."""
    if first is None:
        return frozenset()
    now = [path for path in _written(space, sample.grid) if not covers(first, path)]
    return frozenset(path for path in now if not covers([*space.grid, *space.search], path))


def _names(record: Record, config: TrialConfig, without: frozenset[str] = frozenset()) -> set[str]:
    """Names that the trial may have: also the one that it has if its files were named as written and not yet hashed."""
    forms = [config]
    if config.file_hashes and not record.content.get("file_hashes"):
        as_written = {name: record.content.get(name) for name in config.file_hashes}
        forms.append(config.model_copy(update={"file_hashes": {}, **as_written}))
    return {form.name_at(record.stored.revisions, without) for form in forms}


def _other_name(record: Record, config: TrialConfig) -> str:
    """Return the line on a trial whose content is as the space says, but whose name is not."""
    stored = record.content
    gone = [path for path, _ in leaves(stored) if path.split(".")[0] not in type(config).model_fields]
    if gone:
        return f"{record.id} has the field {gone[0]}, which this version does not know: use the version that wrote it"
    return (
        f"{record.id} has the config of {config.name_at(record.stored.revisions)}: its config.json was changed by "
        "hand, or a default has changed to a value that it has: restore the file, use the version that wrote it"
    )


def _revised(record: Record, config: TrialConfig) -> str:
    """Return the line on a trial that was made with other revisions than this code's."""
    now, before = revised_parts(config), record.stored.revisions
    part = next(part for part in (*now, *before) if config.revisions.get(part, 1) != before.get(part, 1))
    was, number = before.get(part, 1), config.revisions.get(part, 1)
    why = f" ({now[part].because})" if part in now and number > was else ""
    return f"{record.id} was made with revision {was} of its {part}, but this version computes revision {number}{why}"
