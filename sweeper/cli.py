"""The command line: what people type, checked whole before anything starts.

Imports what --show needs; torch, Optuna and Ray come with :mod:`sweeper.driver`, once something is to run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from sweeper.control import cancel, list_sweeps
from sweeper.execution.signals import interruptible
from sweeper.options import COMPLETE, FAILURES, STOPPED, WRONG_INPUT, read_options, sweep_path
from sweeper.results.report import show
from trials.errors import UserError
from trials.storage.place import place

__all__ = ["COMPLETE", "FAILURES", "STOPPED", "WRONG_INPUT", "main"]


def main(arguments: Sequence[str] | None = None, *, submitted: bool = False) -> int:
    """Run a command line; returns the exit code: 0 complete, 1 some trial failed, 2 wrong input, 130 stopped.

    ``submitted``: it came through ``ray submit``, and so through a shell that nobody quoted it for.
    """
    console = make_console()
    try:
        options = read_options(sys.argv[1:] if arguments is None else arguments, submitted=submitted)
        if options.list_spaces:
            from sweeper.space.space_files import list_spaces

            for name, about, profiles in list_spaces():
                console.print(f"{name}: {about}" + (f" (profiles: {', '.join(profiles)})" if profiles else ""))
            return COMPLETE
        if options.list:
            list_sweeps(place(options.storage), console)
            return COMPLETE
        if options.show is not None:
            show(sweep_path(options.storage, options.show), console)
            return COMPLETE
        if options.dashboard is not None:
            from sweeper.dashboard import serve

            with interruptible():
                serve(sweep_path(options.storage, options.dashboard), console)
            return COMPLETE
        if options.cancel is not None:
            cancel(sweep_path(options.storage, options.cancel), console)
            return COMPLETE
        if not options.space:
            raise UserError("--space is missing: name one (--list-spaces shows them) or give a YAML file")
        with interruptible():
            from sweeper.driver import sweep

            return sweep(options, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("stopped; the same command again goes on", file=sys.stderr)
        return STOPPED


def make_console() -> Console:
    """A console that does not wrap or colour what goes to a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=10_000, no_color=True, soft_wrap=True)
