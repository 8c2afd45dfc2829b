"""A sweep as Python programs see it: its tables, and the questions that are asked most."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sweeper.columns import config_column
from sweeper.console import console_here
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.paired.comparison_table import compare_sweeps
from sweeper.results.frames import SweepTables
from sweeper.results.point_tables import best_table, points_table
from sweeper.results.report import Standing, count, figures_of
from sweeper.results.retried import with_retries
from sweeper.results.stored_space import WITHOUT_SPACE, StoredSpace, stored_space
from sweeper.results.summary import summarise
from sweeper.results.table_cache import gather
from sweeper.results.tables import read
from sweeper.space.options.objectives import Objective, refuse_test_and_text
from trials.errors import UserError, shown, unknown_name
from trials.plugins.importing import admit_listed
from trials.storage.place import Place, place
from trials.storage.sweep_path import sweep_path

if TYPE_CHECKING:
    import optuna

    from sweeper.packing.packing import Packing
    from trials.single import Trial

_FIRST = ("cell", "trial")
_FIGURES = ("val_accuracy", "test_accuracy", "density", "warnings")


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(SweepTables):
    """A sweep as it was when it was loaded: tables as pandas DataFrames, and what follows from them.

    docs/tables.md documents the columns of ``trials``, ``epochs``, ``layers``, ``allocations`` and ``lineage``. The
    methods use the space as the folder has it: its objectives, constraints and confirmations.
    """

    @classmethod
    def begun(cls, path: Place) -> Sweep:
        """Return a sweep's tables, also before it has begun: then they have their columns, and no rows."""
        return cls._of(gather(SweepFolder(path)).sweep(path))

    @classmethod
    def _of(cls, tables: SweepTables) -> Sweep:
        return cls(**{field.name: getattr(tables, field.name) for field in fields(tables)})

    def best(self, objective: str | None = None, direction: str | None = None) -> pd.DataFrame:
        """Return the best point of each cell: rows of ``trials`` in the grid's order.

        Where points have replicates, a row stands for all of them: the objective is the judge's value, other figures
        are means, ``trial`` is the first replicate, what differs otherwise is missing, and ``replicates`` and the
        objective's ``_std`` (ddof 1) are added. Only complete points that keep the space's constraints count. A cell
        without one has no row; :meth:`summary` says how far it is. Cells are not compared with each other: accuracy at
        1 % density says nothing of 50 %. Where the space confirms best points with other seeds, the figures of a cell
        are in :meth:`summary`.

        Args:
            objective: column of ``trials`` that ranks; by default the space's first objective.
            direction: ``maximize`` or ``minimize``; by default the space's for its own objective, else ``maximize``.

        Returns:
            The columns of ``trials``: cell, trial, grid, search, objective and accuracies first.

        Raises:
            UserError: there is no such column, it holds no numbers, or it is of the test set, which chooses nothing.
        """
        space = self._space()
        by = self._ranked_by(space, objective, direction)
        best = (cell.best for cell in figures_of(self, space, by))
        kept = (point for point in best if point is not None and point.missed(space.constraints) == 0)
        found = best_table(self, kept, by)
        grid = [column for path in space.paths if (column := config_column(path)) in found]
        search = [column for path in space.search if (column := config_column(path)) in found]
        first = dict.fromkeys([*_FIRST, *grid, *search, by.column, *_FIGURES])
        ordered: pd.DataFrame = found[[*first, *(column for column in found.columns if column not in first)]]
        return ordered

    def points(self) -> pd.DataFrame:
        """Return every point that the searches have asked for, with its judged value: what the searches were told.

        Returns:
            A row per point, by cell and number: ``cell``, ``point``, the grid's and the search's columns; ``status``:
            ``complete``, ``running``, ``failed`` (also if a complete trial lacks an objective or a bounded column), or
            ``pruned`` if it ended before all replicates were complete, by the pruner or the race; ``replicates``: how
            many are complete; the objectives, which are the judge's values and known of complete points only;
            ``missed``: by how much the point misses its bounds, 0 if it keeps them; means of the accuracies and the
            density; ``<column>_std`` (ddof 1); ``trials``: the ids. A point that repeats an earlier one of its cell has
            no row.
        """
        space = self._space()
        return points_table(with_retries(self, space), space)

    def summary(self) -> pd.DataFrame:
        """Return what the report prints: a row per group of cells that differ only in their seed.

        Means and standard deviations (ddof 1) over seeds are in ``<column>_mean`` and ``<column>_std``, their number in
        ``n``; :func:`sweeper.results.summary.summarise` documents the other columns.
        """
        space = self._space()
        first, *others = space.objectives
        return summarise(
            with_retries(self, space), objective=first.column, direction=first.direction, grid=space.paths,
            search=space.search, constraints=space.constraints, beside=[other.column for other in others],
            confirm=space.confirm, replicates=space.replicates,
        )  # fmt: skip

    def curves(
        self, column: str = "val_accuracy", trials: str | Iterable[str] | None = None, stage: str | None = None
    ) -> pd.DataFrame:
        """Return one column of ``epochs`` for each trial, to plot: ``sweep.curves().plot()``.

        Args:
            column: a column of ``epochs`` that holds numbers.
            trials: one id or several, as in ``sweep.best()["trial"]``; by default all trials.
            stage: only the rows of this stage, such as ``finetune``; by default all, the dense start's included.

        Returns:
            A column per trial; the index ``row`` counts the trial's rows from 0. NaN beyond a trial's last row.

        Raises:
            UserError: there is no such column, stage or trial, or the column holds no numbers.
        """
        rows = self.epochs
        numbers = [name for name in rows.columns if pd.api.types.is_numeric_dtype(rows[name])]
        if column not in numbers:
            raise UserError(unknown_name("column", column, numbers))
        if stage is not None:
            stages = sorted(set(rows["stage"].dropna()))
            if stage not in stages:
                raise UserError(unknown_name("stage", stage, stages))
            rows = rows[rows["stage"] == stage]
        given = [trials] if isinstance(trials, str) else trials
        names = list(self.trials["trial"]) if given is None else [str(trial) for trial in given]
        for name in names:
            if name not in set(self.trials["trial"]):
                raise UserError(unknown_name("trial", name, self.trials["trial"]))
        own = {trial: found.reset_index(drop=True) for trial, found in rows.groupby("trial")[column]}
        empty = pd.Series(dtype="float64")
        frame = pd.DataFrame({name: own.get(name, empty).astype("float64") for name in names})
        named: pd.DataFrame = frame.rename_axis(index="row", columns="trial")
        return named

    def study(self, cell: str | Mapping[str, Any] | None = None, *, plugins: Iterable[str] = ()) -> optuna.Study:
        """Return a cell's search as an Optuna study, for ``optuna.importance`` and ``optuna.visualization``.

        It is a copy in memory of what is committed by now, with one trial per point: values, state, parameters with
        their distributions, intermediate values (the first objective after each epoch that may be stopped), constraints
        and times. User attributes hold the trial's id (``trial``), the sample's number (``sample``), the grid values
        and the trial's result. Confirmations, and trials of ``from_sweep``, are no points. Changing the copy changes
        nothing of the sweep.

        Args:
            cell: its key, such as ``density=0.2,seed=0``, or its grid values, as ``{"density": 0.2, "seed": 0}``; by
                default the only cell.
            plugins: your own code that the space names, if this process has not imported it yet.

        Raises:
            UserError: there is no such cell, or the space cannot be read here.
        """
        from sweeper.search.cells import cell_studies  # imports Optuna, which tables do not need

        admit_listed({}, Path.cwd(), list(plugins))
        folder = SweepFolder(self.path)
        space = cell_studies.stored_space_of(folder)
        return cell_studies.study_of(space, folder, cell_studies.cell_of(space, cell))

    def report(self, to: str | Path | None = None) -> Place:
        """Write the sweep's report, one HTML file that needs no network (docs/report.md), and return its path.

        Args:
            to: the file; by default ``report.html`` in the sweep's folder.

        Raises:
            UserError: the file cannot be written, or the space cannot be read.
        """
        from sweeper.report.gathered import gathered_of  # Jinja, which tables do not need
        from sweeper.report.written import write_report

        return write_report(gathered_of(self), None if to is None else Path(to))

    def pack(self) -> Packing:
        """Put the sweep's finished trials into few files, as ``sweep.py --pack`` does (docs/storage.md).

        Every reader finds them under the paths that they had; this object stays as it is. Checkpoints that the space's
        ``keep_checkpoints`` does not keep are dropped.

        Returns:
            How many trials were packed, and how many files hold those that are packed; as text, the command's line.

        Raises:
            UserError: a driver runs the sweep, or the storage is full or cannot be written.
        """
        from sweeper.packing.whole_sweep import pack_whole

        return pack_whole(self.path, console_here())

    def compare(self, other: SweepTables) -> pd.DataFrame:
        """Return how another sweep differs from this one, by cell: ``other`` minus this, tested over seeds in pairs.

        Cells are matched by their grid values without the seed; a field with one value in each sweep matches nothing.
        The figures of a cell are those of :meth:`summary`: of its best point, chosen on validation data, or of what
        confirms it. Trials with the same ``seed`` and ``split_seed`` are a pair.

        Returns:
            A row per figure and cell: ``figure`` (the objective, ``val_accuracy``, ``test_accuracy``); the fields that
            match, named as in ``trials``; ``found_in``: ``both``, ``a`` (only in this sweep) or ``b``; ``a_mean``,
            ``a_std`` (ddof 1), ``a_n``, ``a_density`` and ``b_...``: over all seeds that the sweep has there; ``n``:
            pairs; ``difference``, ``difference_std``: mean and deviation (ddof 1) of b - a; ``low``, ``high``: the
            mean's 95 % confidence interval (Student's t); ``p``: of the paired t test, two-sided; ``p_holm``: corrected
            for the number of cells (Holm 1979); ``p_wilcoxon``: of the signed-rank test, from 6 pairs on; ``note``: why
            there is no test, or what a cell lacks. ``attrs["notes"]`` and ``attrs["fields"]`` list what else differs.

        Raises:
            UserError: the sweeps have other objectives, or every cell that both have differs in its model, data or
                validation images.
        """
        found = compare_sweeps(self, other)
        found.table.attrs = {"notes": list(found.notes), "fields": list(found.fields)}
        return found.table

    @property
    def failed(self) -> pd.DataFrame:
        """Trials whose last attempt has failed, with ``error_type`` and ``error_message``; empty if none has."""
        columns = ["trial", "cell", "failures", "error_type", "error_message"]
        found: pd.DataFrame = self.trials[self.trials["status"] == "failed"][columns].reset_index(drop=True)
        return found

    def trial(self, trial: str) -> Trial:
        """Return one trial by its id, with its config, its rows and its network (:class:`trials.Trial`).

        Raises:
            UserError: the sweep has no such trial, or its files are damaged.
        """
        from trials.single import load as load_trial  # imports torch, which tables do not need

        if trial not in set(self.trials["trial"]):
            raise UserError(unknown_name("trial", trial, self.trials["trial"]))
        return load_trial(SweepFolder(self.path).trial_folder(trial))

    def standing(self) -> Standing:
        """Return how many trials are done, running, failed and left; as text, the line that ``--list`` prints."""
        return count(self, self._space())

    def _space(self) -> StoredSpace:
        return stored_space(self) or WITHOUT_SPACE

    def _ranked_by(self, space: StoredSpace, column: str | None, direction: str | None) -> Objective:
        first = space.objectives[0]
        column = first.column if column is None else column
        own = {objective.column: objective.direction for objective in space.objectives}
        refuse_test_and_text(column, "objective")
        numbers = [
            name
            for name in self.trials.columns
            if pd.api.types.is_numeric_dtype(self.trials[name]) and not name.startswith("test_")
        ]
        if column not in numbers:
            raise UserError(unknown_name("objective", column, numbers))
        direction = own.get(column, "maximize") if direction is None else direction
        if direction not in ("maximize", "minimize"):
            raise UserError(f"direction is {shown(direction)}, but must be 'maximize' or 'minimize'")
        return Objective(column=column, direction="maximize" if direction == "maximize" else "minimize")

    def __repr__(self) -> str:
        counts = self.trials["status"].value_counts()
        said = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        return f"<Sweep {self.path}: {said or 'no trials'}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the line of ``--list``, the summary, and what has failed or could not be read."""
        try:
            head, table = str(self.standing()), self.summary().dropna(axis="columns", how="all")
        except UserError as error:
            return f"<p>{escape(repr(self))}<br>{escape(str(error))}</p>"
        parts = [f"<p>{escape(head)}</p>", table.to_html(index=False) if len(table) else ""]
        if len(self.failed):
            parts.append(f"<p>failed:</p>{self.failed.head(20).to_html(index=False)}")
        return "".join([*parts, *(f"<p>left out: {escape(line)}</p>" for line in self.damaged)])


def load(path: str | Place, storage: str | Path | None = None) -> Sweep:
    """Return a sweep, which may be running: its folder ``storage/name``, or its name in a storage. Writes nothing.

    Damaged files are left out, with a warning that lists them.

    Args:
        path: a path, ``s3://bucket/prefix/name``, or a name.
        storage: where a name is looked for; by default ``$SWEEP_STORAGE``, else ``results``.

    Raises:
        UserError: there is no such sweep.
    """
    sweep = read_sweep(_found(path, storage))
    if sweep.damaged:
        warnings.warn("left out of the tables: " + "; ".join(sweep.damaged), stacklevel=2)
    return sweep


def read_sweep(path: str | Place) -> Sweep:
    """Like :func:`load` of a folder, but without the warning: the caller checks ``damaged``."""
    return Sweep._of(read(path))


def _found(path: str | Place, storage: str | Path | None) -> Place:
    if storage is None and not (isinstance(path, str) and re.fullmatch(r"[^/\\:~]+", path)):
        return place(path)
    if storage is None and ((there := place(path)) / "trials").is_dir():
        return there
    where = os.environ.get("SWEEP_STORAGE", "results") if storage is None else str(storage)
    return sweep_path(where, str(path), "name")
