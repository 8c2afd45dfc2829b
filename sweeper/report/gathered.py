"""What a report is made of: a sweep's tables, its stored space and how it stands, read once for all figures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.cell_trials import CellTrials
from sweeper.results.frames import SweepTables
from sweeper.results.report import Standing, count, figures_of
from sweeper.results.retried import with_retries
from sweeper.results.stored_space import WITHOUT_SPACE, StoredSpace, stored_space, with_space
from sweeper.results.tables import read
from trials.storage.place import Place


@dataclass(frozen=True)
class Gathered:
    """A sweep as it was at one moment.

    Attributes:
        sweep: its tables; a failed trial that will be retried counts as running.
        space: what the tables need of its space; that of single trials if there is no ``sweep.yaml``.
        standing: how many trials are done, running, failed and left.
        documents: the parts of ``sweep.yaml``, first to last; empty if there is none.
        at: when it was read, in seconds since 1970.
    """

    sweep: SweepTables
    space: StoredSpace
    standing: Standing
    documents: tuple[Mapping[str, Any], ...] = ()
    at: float = field(default_factory=time.time)

    @property
    def has_space(self) -> bool:
        """Whether the sweep has a space: grid, cells and objectives."""
        return self.space is not WITHOUT_SPACE

    @cached_property
    def cells(self) -> list[CellTrials]:
        """The cells that have a trial, with the trials that are their figures, in the grid's order."""
        return figures_of(self.sweep, self.space)

    @cached_property
    def figure_trials(self) -> dict[str, str]:
        """The cells' keys by the trials that are their figures: the best ones, or their confirmations."""
        return {row["trial"]: cell.trials[0]["cell"] for cell in self.cells for row in cell.figures}


def gathered(path: Place) -> Gathered:
    """Read a sweep, which may be running. Writes nothing.

    Raises:
        UserError: there is no such sweep, or its ``sweep.yaml`` is damaged or of another version.
    """
    return gathered_of(read(path))


def gathered_of(sweep: SweepTables) -> Gathered:
    """Like :func:`gathered`, of tables that were read already.

    Raises:
        UserError: the sweep's ``sweep.yaml`` is damaged or of another version.
    """
    stored = stored_space(sweep)
    space = stored or WITHOUT_SPACE
    documents = tuple(SweepFolder(sweep.path).documents())
    return Gathered(with_space(with_retries(sweep, space), stored), space, count(sweep, space), documents)
