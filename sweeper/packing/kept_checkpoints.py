"""Which finished trials keep their checkpoints: ``keep_checkpoints`` of the space."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from sweeper.folder.sweep_file import SWEEP_FILE
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.frames import SweepTables
from sweeper.results.pareto import pareto_front
from sweeper.results.point_tables import points_table
from sweeper.results.report import figures_of
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.stored_space import StoredSpace, stored_space
from sweeper.results.tables import read
from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.outages import acting
from trials.storage.place import Place
from trials.storage.safe_read import read_plain
from trials.storage.sealed import unseal_lines
from trials.storage.sweep_path import is_sweep_name

_LACKING = ("running", "failed")
"""Of points that may become complete; failed ones by ``--retry-failed``."""

_TRIAL_PATH = re.compile(rb"/trials/([A-Za-z0-9_][A-Za-z0-9_.=-]*)")


def everything(trial: str) -> bool:
    """``all``: every trial keeps its checkpoint."""
    return True


@acting()  # what it does not name is deleted
def kept_checkpoints(folder: SweepFolder, *, over: bool) -> Callable[[str], bool]:
    """Return whether a finished trial keeps its checkpoint, as the sweep's space says.

    Whatever the space says, trials that a ``sweep.yaml`` of the storage names by their folder keep theirs (all of them
    if one is damaged) and, while the sweep goes on, the trials of populations.

    Args:
        over: whether the sweep is complete.

    Raises:
        UserError: ``sweep.yaml`` is damaged.
        OSError: the storage does not give a file.
    """
    document = folder.space_document() or {}
    policy = document.get("keep_checkpoints", "all")
    if policy == "all":
        return everything
    sweep = read(folder.path, rows=())
    populated = bool(document.get("pbt"))
    named = named_trials(folder.path.parent)
    if named is None:
        return everything
    kept = named
    if populated:
        kept |= _of_populations(sweep, only_last=over and policy != "none") if not over or policy != "none" else set()
    if policy == "last_level":
        gone = _earlier_levels(folder) | (_of_populations(sweep) - _of_populations(sweep, only_last=True))
        return lambda trial: trial in kept or trial not in gone
    if policy == "best":
        space = stored_space(sweep)
        kept |= set() if space is None else _best(sweep, space)
    return lambda trial: trial in kept


def _best(sweep: SweepTables, space: StoredSpace) -> set[str]:
    """The trials of each cell's best point, those that confirm it and, of several objectives, the Pareto front's.

    Those of points that still lack replicates, too: such a point may become the best one.
    """
    found = {row["trial"] for cell in figures_of(sweep, space) for row in cell.marked}
    found |= {row["trial"] for cell in figures_of(sweep, space) if cell.best for row in cell.best.rows}
    if len(space.objectives) > 1:
        front = pareto_front(sweep, space.objectives, space.constraints, space.search, space.replicates)
        found |= set(front["trial"])
    if space.replicates is not None:
        points = points_table(sweep, space)
        found |= {trial for trials in points[points["status"].isin(_LACKING)]["trials"] for trial in trials}
    return found


def _earlier_levels(folder: SweepFolder) -> set[str]:
    """Of complete trials that differ only in the number of their levels: all but those with the most."""
    most: dict[str, tuple[int, str]] = {}
    gone = set()
    for record in folder.records():
        levels = record.content.get("levels")
        if isinstance(levels, int) and record.finished:
            others = {name: value for name, value in record.content.items() if name != "levels"}
            here, key = (levels, record.id), json.dumps(others, sort_keys=True)
            before = most.setdefault(key, here)
            most[key] = max(before, here)
            gone |= {min(before, here)[1]} - {most[key][1]}
    return gone


def _of_populations(sweep: SweepTables, *, only_last: bool = False) -> set[str]:
    """The trials of populations; ``only_last``: of the last generation of each, which a longer one continues."""
    rows = rows_of(sweep.lineage, {"trial", "cell", "generation"})
    last: dict[Any, int] = {}
    for row in rows:
        last[row["cell"]] = max(last.get(row["cell"], 0), row["generation"])
    return {row["trial"] for row in rows if not only_last or row["generation"] == last[row["cell"]]}


def named_trials(storage: Place) -> set[str] | None:
    """Names of trials to whose folders a ``sweep.yaml`` of the storage refers, as of ``source``.

    None if one that is damaged, or that this user may not read, cannot say which. Raises OSError if the storage does
    not give one.
    """
    found: set[str] = set()
    for name in filter(is_sweep_name, files.names(storage)):  # others, such as lost+found, may not even be readable
        where = storage / name / SWEEP_FILE
        try:
            text = unseal_lines(read_plain(where), where)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (DamagedFile, PermissionError):
            return None
        found |= {match.decode() for match in _TRIAL_PATH.findall(text)}
    return found
