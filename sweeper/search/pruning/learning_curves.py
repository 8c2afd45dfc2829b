"""Learning curves for a study: a column's value after each epoch in which a trial may be stopped, from its rows."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.results.tables import read
from sweeper.search.pruning.bounds import OF_ROWS
from sweeper.search.pruning.positions import POSITION_COLUMNS, Position
from trials.errors import DamagedFile
from trials.methods.registry import METHODS
from trials.storage.rows import Row

_ROWS_AT_ONCE = 20_000
"""Rows that are Python's objects at a time."""


@dataclass(frozen=True)
class Course:
    """The epochs of a trial in which it may be stopped.

    Attributes:
        curve: a column's value by step; steps count these epochs, from 1 and over all levels.
        reached: the same values, each with its position.
        last: the last of these rows; None without any.
    """

    curve: dict[int, float] = field(default_factory=dict)
    reached: tuple[tuple[Position, float], ...] = ()
    last: Row | None = None


def course_of(rows: Iterable[Row], method: str, column: str) -> Course:
    """The course of a trial by ``column``, from its rows of ``epochs`` in their order.

    It covers the stages in which ``method`` may be stopped: none if this version does not know it.
    """
    stoppable = METHODS[method].stoppable if method in METHODS else ()
    own = [row for row in rows if row["stage"] in stoppable and row["epoch"] > 0 and row["stage_id"] is None]
    known = [(step, row, float(row[column])) for step, row in enumerate(own, start=1) if row[column] is not None]
    return Course(
        {step: value for step, _, value in known},
        tuple((Position.of(row), value) for _, row, value in known),
        own[-1] if own else None,
    )


def course_in(record: Record, column: str) -> Course:
    """The course of one trial up to its last commit; empty if it has no rows yet or they are damaged."""
    if record.state is None or not record.state.commits:
        return Course()
    try:
        table = record.folder.table(record.state.commits[-1], "epochs")
        return Course() if table is None else course_of(table.to_pylist(), str(record.content.get("method")), column)
    except (DamagedFile, OSError, ValueError, LookupError, TypeError):
        return Course()


class PackedCourses(Mapping[str, Course]):
    """Courses by trial, of rows that lie packed in memory: each look at one makes it anew.

    Args:
        methods: each trial's method.
        column: the one whose values make the curves.
        names: the columns of the rows, ``trial`` first.
    """

    def __init__(self, methods: Mapping[str, str], column: str, names: Sequence[str]) -> None:
        self._methods, self._column, self._names = methods, column, tuple(names)
        self._packed: dict[str, list[bytes]] = {}

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add rows, each trial's in their order."""
        for trial, found in groupby(rows, key=itemgetter(0)):
            if trial in self._methods:
                self._packed.setdefault(trial, []).append(zlib.compress(json.dumps(list(found)).encode(), level=1))

    def __getitem__(self, trial: str) -> Course:
        parts = (json.loads(zlib.decompress(part)) for part in self._packed[trial])
        rows = [dict(zip(self._names, row, strict=True)) for part in parts for row in part]
        return course_of(rows, self._methods[trial], self._column)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def courses_in(folder: SweepFolder, methods: Mapping[str, str], column: str) -> Mapping[str, Course]:
    """By trial, the courses of a sweep's trials, read at once. ``methods``: the method of each trial to include."""
    if not methods:
        return {}
    epochs = read(folder.path, rows=("epochs",)).epochs
    wanted = dict.fromkeys(["trial", "stage_id", column, *POSITION_COLUMNS, *OF_ROWS])
    names = [name for name in wanted if name in epochs.columns]
    if column not in names:
        return {}
    courses = PackedCourses(methods, column, names)
    for start in range(0, len(epochs), _ROWS_AT_ONCE):
        part = epochs[names].iloc[start : start + _ROWS_AT_ONCE].astype(object)
        courses.add(part.where(part.notna(), None).itertuples(index=False, name=None))
    return courses
