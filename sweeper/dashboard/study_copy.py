"""A sweep as Optuna studies in a storage that optuna-dashboard reads: one of all its points, and one of each cell.

The copy is derived: it is written anew at every start, follows the sweep while it is shown, and is never read back.
"""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from sweeper.dashboard.copied_study import CopiedStudy, TimedJournal
from sweeper.dashboard.summary import summary_attrs, summary_name, summary_trials
from sweeper.folder.search_ends import read_shorter
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.cells.cell_studies import metric_names, studied_points, study_name
from sweeper.space.load import from_document
from sweeper.space.space import Space
from trials.errors import UserError
from trials.storage import files
from trials.storage.scratch import scratch_until_exit

optuna.logging.set_verbosity(optuna.logging.WARNING)

_ENDED_EARLY = "ended early"
"""Attribute of a cell's study: why its search has ended before its samples."""


class StudyCopy:
    """The points of a sweep's searches as Optuna studies; :meth:`refresh` updates them from what is committed.

    The study of all points is made last, since optuna-dashboard lists the newest study first, and those of the cells in
    reverse order.

    Args:
        storage: where the studies are made.
        journal: the storage's journal; without one, a trial that changes while it is shown gets the time of the copy.

    Raises:
        UserError: the folder holds no sweep.
    """

    def __init__(self, folder: SweepFolder, storage: BaseStorage, journal: TimedJournal | None = None) -> None:
        self.folder, self.storage, self.space = folder, storage, space_in(folder)
        self._journal, self._written = journal, _sweep_file(folder)
        self._studies: dict[str, CopiedStudy] = {}

    def refresh(self) -> None:
        """Add new points and update those that have changed.

        Raises:
            OSError: the storage cannot be read.
            UserError: what it holds cannot be read.
        """
        if (written := _sweep_file(self.folder)) != self._written:
            self.space, self._written = space_in(self.folder), written  # the sweep was extended
        records = self.folder.records()
        points = list(studied_points(self.space, self.folder, records, curves=True))
        cells: dict[str, dict[tuple[str, int], FrozenTrial]] = {cell.key: {} for cell in self.space.cells()}
        for point in points:
            cells.setdefault(point.cell, {})[point.cell, point.number] = point.trial
        ends = {cell: str(one) for cell, one in read_shorter(self.folder.path).items() if one.over}
        for cell, trials in reversed(cells.items()):
            study = self._study(study_name(self.folder, cell))
            study.show(trials)
            study.describe({_ENDED_EARLY: ends[cell]} if cell in ends else {})
        summary = self._study(summary_name(self.folder))
        summary.show(summary_trials(self.space, points, records))
        summary.describe(summary_attrs(self.space, records))

    def _study(self, name: str) -> CopiedStudy:
        if name not in self._studies:
            directions = [StudyDirection[objective.direction.upper()] for objective in self.space.objectives]
            made = CopiedStudy(self.storage, self._journal, name, directions, metric_names(self.space))
            self._studies[name] = made
        return self._studies[name]


def space_in(folder: SweepFolder) -> Space:
    """Return the space of a sweep as of its last change.

    Raises:
        UserError: the folder holds no sweep, or its space cannot be read.
    """
    document = folder.space_document()
    if document is None:
        raise UserError(f"{folder.path} is not a sweep's folder (it has no sweep.yaml): give a sweep's name")
    return from_document(document)


def _sweep_file(folder: SweepFolder) -> str:
    return (folder.path / "sweep.yaml").read_bytes().decode()


def write_copy(folder: SweepFolder) -> StudyCopy:
    """Write the copy anew to ``tables/optuna.journal``.

    It lies in a temporary folder if the sweep is in an object store or its folder cannot be written.

    Raises:
        UserError: the folder holds no sweep.
    """
    space_in(folder)  # raises if it is no sweep, before anything is written
    tables = folder.tables
    if not isinstance(tables, Path) or not _writable(tables):
        tables = scratch_until_exit()
    path = tables / "optuna.journal"
    for old in tables.glob(f"{path.name}*"):
        old.unlink()
    journal = TimedJournal(str(path))
    copy = StudyCopy(folder, JournalStorage(journal), journal)
    copy.refresh()
    return copy


def _writable(folder: Path) -> bool:
    try:
        files.require_writable(folder)
    except OSError:
        return False
    return True
