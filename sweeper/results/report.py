"""Print a report of a sweep: its progress, summary, failures, and where its tables are."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from rich.console import Console

from sweeper.console import print_line, print_table
from sweeper.folder.search_ends import read_shorter, shorter_damage
from sweeper.results.cell_trials import CellTrials
from sweeper.results.frames import SweepTables
from sweeper.results.pareto import pareto_front
from sweeper.results.points import columns_judged, columns_of_replicates, points_in
from sweeper.results.regrowth import allocation_texts
from sweeper.results.retried import with_retries
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.stored_space import WITHOUT_SPACE, StoredSpace, foreign_trials, stored_space
from sweeper.results.summary import cells_of, column_of
from sweeper.results.tables import read
from sweeper.results.texts.mixed import mixed_data, mixed_precision
from sweeper.results.texts.summary_texts import summary_texts, table_text
from sweeper.results.warned import marks, warnings_line
from sweeper.space.options.objectives import Objective
from trials.storage.leases.lease import Lease
from trials.storage.place import Place
from trials.storage.rows import FINISHED, Row

FAILURES_SHOWN = 20
ROWS_SHOWN = ("epochs", "allocations")  # the tables of rows that a report needs


def show(path: Place, console: Console) -> None:
    """Print a sweep's progress and results, also while it runs elsewhere.

    Raises:
        UserError: ``path`` is not a sweep's folder, or its sweep.yaml is damaged or of another version.
    """
    show_tables(read(path, rows=ROWS_SHOWN), console)


def show_tables(sweep: SweepTables, console: Console) -> Standing:
    """Like :func:`show`, of tables that have at least the rows :data:`ROWS_SHOWN`; returns how far the sweep is."""
    space = stored_space(sweep) or WITHOUT_SPACE
    found = count(sweep, space)
    print_line(console, str(found))
    print_report(sweep, console, space)
    return found


@dataclass(frozen=True)
class Standing:
    """How far a sweep is. Trials are counted in samples: one that serves several counts as often.

    Attributes:
        name: the sweep's.
        total: number of trials that it will have in the end, as far as that is known.
        left: number of those that have not ended and are not running.
        cells: number of its cells, and ``cells_done`` of those that are over; None where no space says it.
        driver: who runs it, or that nobody does though trials are left; empty if there is nothing to say.
        left_out: number of damaged files, whose content is not counted.
        spaceless: whether the sweep's own space is missing, so that nobody knows what is left.
        foreign: why ``sweep.yaml`` or trials must be another sweep's; empty if nothing says so.
    """

    name: str
    total: int
    done: int
    running: int
    failed: int
    left: int
    cells: int | None = None
    cells_done: int = 0
    driver: str = ""
    left_out: int = 0
    spaceless: bool = False
    foreign: str = ""

    @property
    def is_driven(self) -> bool:
        """Whether another process drives the sweep."""
        return self.driver.startswith("driven by")

    @property
    def complete(self) -> bool:
        """Whether every trial is done: none has failed, runs or is left."""
        return self.done >= self.total and not (self.failed or self.running)

    def __str__(self) -> str:
        cells = "" if self.cells is None else f"{self.cells} cells, {self.cells_done} done; "
        trials = (
            f"{self.total} trials, {self.done} done, {self.running} running, {self.failed} failed, {self.left} left"
        )
        damaged = f"{self.left_out} damaged file{'s' * (self.left_out != 1)} left out" if self.left_out else ""
        spaceless = "sweep.yaml is missing" if self.spaceless else ""
        foreign = f"sweep.yaml or trials may be another sweep's: {self.foreign}" if self.foreign else ""
        return "; ".join(filter(None, (f"{self.name}: {cells}{trials}", damaged, spaceless, foreign, self.driver)))


def standing(sweep: SweepTables, space: StoredSpace | None = None) -> str:
    """One line on a sweep: its cells, its trials and its driver.

    Raises:
        UserError: its sweep.yaml is damaged or of another version.
    """
    return str(count_standing(sweep, space))


def count_standing(sweep: SweepTables, space: StoredSpace | None = None) -> Standing:
    """:func:`count` with the space in the sweep's folder, unless it is given. Raises UserError as :func:`standing`."""
    return count(sweep, space or stored_space(sweep) or WITHOUT_SPACE)


def count(sweep: SweepTables, space: StoredSpace) -> Standing:
    """Count a sweep's cells and trials by how they stand, and ask who drives it."""
    sweep = with_retries(sweep, space)
    gone, without_best = _confirmations(sweep, space)
    trials = sweep.trials.assign(samples=sweep.trials["samples"].clip(lower=1))
    trials = trials[~trials["trial"].isin(gone)]
    counts = trials.groupby("status")["samples"].sum().to_dict()
    done, running, failed = (int(sum(counts.get(s, 0) for s in kind)) for kind in (FINISHED, {"running"}, {"failed"}))
    total, cells, cells_done = int(trials["samples"].sum()), None, 0
    each = space.trials_per_cell
    if each is not None:
        never = _never_run(trials, space)
        over = trials[trials["status"].isin(FINISHED | {"failed"})]
        searched, confirmed = (
            over[over["confirms"].isna() == own].groupby("cell")["samples"].sum() for own in (True, False)
        )
        shorter = read_shorter(sweep.path)
        wanted = {cell: each - never.get(cell, 0) for cell in searched.index}
        unasked = {
            cell: max((space.samples or 0) - one.samples, 0) * space.trials_per_point for cell, one in shorter.items()
        }
        whole = {cell for cell in searched.index if searched[cell] >= wanted[cell] - unasked.get(cell, 0)}
        hopeless = without_best & whole
        over_too = [cell for cell in searched.index if cell in hopeless or confirmed.get(cell, 0) >= space.confirm]
        cells, cells_done = space.cells, sum(cell in whole for cell in over_too)
        fewer = sum(never.values()) + sum(unasked.values()) + len(hopeless) * space.confirm
        total = max(space.cells * (each + space.confirm) - fewer, total)
    left = total - done - running - failed
    driver = _driver(sweep, unfinished=space.samples is not None and left + running > 0)
    left_out = len(sweep.damaged) + (shorter_damage(sweep.path) is not None)
    lacks = _lacks_space(sweep, space), foreign_trials(sweep, space)
    return Standing(sweep.path.name, total, done, running, failed, left, cells, cells_done, driver, left_out, *lacks)


def _never_run(trials: pd.DataFrame, space: StoredSpace) -> dict[str, int]:
    """By cell, the number of replicates that are not run, since their points have ended before."""
    found: dict[str, int] = {}
    if space.replicates is not None:
        needed = columns_judged(space.objectives, space.constraints)
        wanted = {"cell", "samples", *columns_of_replicates(space.replicates), *needed}
        rows = rows_of(trials[trials["confirms"].isna()], wanted)
        cells: dict[str, list[Row]] = {}
        for row in rows:
            cells.setdefault(row["cell"], []).append(row)
        for cell, of_cell in cells.items():
            points = points_in(of_cell, space.replicates, needed)
            ended = (point for point in points if point.status in ("pruned", "failed"))
            asked = [[int(row["samples"]) for row in point.rows] for point in ended]  # repeated points share trials
            found[cell] = sum(max(each) * len(space.replicates.points()) - sum(each) for each in asked)
    return found


def _driver(sweep: SweepTables, *, unfinished: bool) -> str:
    owner = Lease(sweep.path / "lock").owner()
    if owner is not None and not owner.surely_dead:
        return "" if owner.is_this_process else f"driven by {owner}"
    return "no driver is running" if unfinished else ""


def _confirmations(sweep: SweepTables, space: StoredSpace) -> tuple[list[str], set[str]]:
    """Trials that confirm what is no longer the best of its cell, and the cells that have no best trial so far."""
    confirming = sweep.trials[sweep.trials["confirms"].notna()]["trial"].tolist()
    if not space.confirm and not confirming:
        return [], set()
    found = figures_of(sweep, space)
    counting = {row["trial"] for cell in found if cell.confirmed for row in cell.confirmed.trials}
    without_best = {cell.trials[0]["cell"] for cell in found if cell.best is None}
    return [trial for trial in confirming if trial not in counting], without_best


def figures_of(sweep: SweepTables, space: StoredSpace, by: Objective | None = None) -> list[CellTrials]:
    """The cells that have a trial, with the trials that are their figures; ``by``: another than the first objective."""
    first, groups = by or space.objectives[0], [path for path in space.paths if path != "seed"]
    figures, more = [first.column], (space.confirm, space.replicates)
    return list(cells_of(sweep, first, groups, (), space.constraints, figures, *more))


def _in_summary(sweep: SweepTables, space: StoredSpace) -> set[str]:
    """The trials whose warnings the rows of :func:`summarise` show."""
    return {row["trial"] for cell in figures_of(sweep, space) for row in cell.marked}


def print_report(sweep: SweepTables, console: Console, space: StoredSpace) -> None:
    """Print :func:`summarise`, Pareto fronts for several objectives, allocations, failures, and the path of the tables.

    Without a terminal the output is aligned plain text.
    """
    sweep = with_retries(sweep, space)
    objectives = space.objectives
    others = objectives[1:]
    if texts := summary_texts(sweep, space):
        keys = (*space.paths, "level", "density asked %")
        print_table(texts, console, left=("confirmed", "warnings", "best", "not complete"), keys=keys)
    front = (
        pareto_front(sweep, objectives, space.constraints, space.search, space.replicates) if others else pd.DataFrame()
    )
    if len(front):
        judged_by = ", ".join(f"{o.column} ({o.direction})" for o in objectives)
        print_line(console, f"Pareto front of each cell: {judged_by}")
        rows = rows_of(front, set(front.columns))
        texts = {str(name): [table_text(row[name]) for row in rows] for name in front.columns}
        texts |= marks(sweep, texts["trial"])
        print_table(texts, console, left=("warnings",), keys=("trial", *map(column_of, space.paths)))
    if regrown := allocation_texts(sweep):
        regrown |= marks(sweep, regrown["regrowth of"])
        print_table(regrown, console, left=("regrowth of", "layer", "warnings"), keys=("regrowth of", "layer"))
    _print_failures(sweep, console)
    for line in problem_lines(sweep, space):
        print_line(console, line)
    above = {*_in_summary(sweep, space), *front.get("trial", ()), *(regrown or {}).get("regrowth of", ())}
    if warned := warnings_line(sweep, above):
        print_line(console, warned)
    tables = sweep.path / "tables"
    written = "" if (tables / "manifest.json").exists() else " (written at the end; sweeper.load works at any time)"
    print_line(console, f"tables: {tables}{written}")


def problem_lines(sweep: SweepTables, space: StoredSpace) -> list[str]:
    """A line each on searches that ended early, confirmations that do not count, mixed trials and damaged files."""
    mixed = (*mixed_data(sweep.trials), *mixed_precision(sweep.trials))
    lines = [*_ended_early(sweep), *_superseded(sweep, space), *mixed]
    lines += [f"left out: {damage}" for damage in (*sweep.damaged, shorter_damage(sweep.path)) if damage]
    if not _lacks_space(sweep, space):
        return lines
    return [
        *lines,
        f"{sweep.path / 'sweep.yaml'} is missing, so each trial is shown by itself: restore the file, or run the sweep "
        "again with its space, which writes it anew",
    ]


def _lacks_space(sweep: SweepTables, space: StoredSpace) -> bool:
    """Whether the sweep has trials that a space asked for, but no longer has the space."""
    return space is WITHOUT_SPACE and bool(sweep.trials["cell"].notna().any())


def _print_failures(sweep: SweepTables, console: Console) -> None:
    failed = sweep.trials[sweep.trials["status"] == "failed"]
    for row in rows_of(failed.head(FAILURES_SHOWN), {"trial", "error_type", "error_message"}):
        print_line(
            console, f"failed: {row['trial']}: {row['error_type']}: {' '.join((row['error_message'] or '').split())}"
        )
    if len(failed) > FAILURES_SHOWN:
        print_line(console, f"failed: and {len(failed) - FAILURES_SHOWN} more (error_message in the table trials)")


def _ended_early(sweep: SweepTables) -> list[str]:
    """A line per cell whose search has ended before its samples, and why."""
    found = {cell: one for cell, one in read_shorter(sweep.path).items() if one.over}
    lines = [f"ended early: {cell or 'the search'} {one}" for cell, one in found.items()]
    more = len(lines) - FAILURES_SHOWN
    return [*lines[:FAILURES_SHOWN], f"ended early: and {more} more searches"] if more > 0 else lines


def _superseded(sweep: SweepTables, space: StoredSpace) -> list[str]:
    """A line on confirmations that do not count, such as those of a trial that more samples have beaten."""
    gone, _ = _confirmations(sweep, space)
    if not gone:
        return []
    some = f"{', '.join(gone[:FAILURES_SHOWN])}{', ...' if len(gone) > FAILURES_SHOWN else ''}"
    return [f"not counted: {len(gone)} confirmations of trials that are no longer the best of their cells: {some}"]
