"""The end of a run: tables, results, report and exit code."""

from __future__ import annotations

from rich.console import Console

from sweeper.options import COMPLETE, FAILURES, STOPPED
from sweeper.packing.automatic import drop_and_pack
from sweeper.report.written import report_line
from sweeper.results.report import show_tables
from sweeper.results.tables import compact_tables, read
from sweeper.screen.activity import doing
from sweeper.search.plan import Plan
from trials.errors import UserError
from trials.storage import files
from trials.storage.outages import errs, impatient


def conclude(plan: Plan, console: Console, *, interrupted: bool = False) -> int:
    """Write the tables, print the results, write the report, and return the exit code of a run.

    Raises KeyboardInterrupt if ``interrupted``.
    """
    space, folder = plan.space, plan.folder
    try:
        with doing(console, "packing"), impatient():
            drop_and_pack(folder, over=plan.complete)
    except (OSError, UserError) as error:  # such as a packed file that is gone: its trials are as they were
        console.print(f"not everything was packed ({error}); the next run goes on", markup=False)
    try:
        with doing(console, "writing the tables"), impatient():
            compact_tables(folder, plan.finished)
    except OSError as error:
        if not errs(error):
            raise
        way = "free space, then run the same command again" if files.is_full(error) else "the next run writes them"
        console.print(f"the tables were not written ({error}): {way}", markup=False)
    sweep = read(folder.path)
    show_tables(sweep, console)
    console.print(report_line(sweep), markup=False)
    if interrupted:
        raise KeyboardInterrupt(f"{folder.path.name} was stopped; everything is committed, and the same call resumes")
    if not plan.complete:
        if plan.out_of_budget:
            spent = f"{plan.budget.taken} of max_epochs {space.max_epochs} are spent"
            console.print(f"{spent}: run the same command with --set max_epochs=MORE to resume", markup=False)
        return STOPPED
    return FAILURES if plan.failed else COMPLETE
