"""The command line: a table of commands. Each imports what it needs, so that reports load neither torch nor Ray.

``sweep.py`` begins without garbage collection; commands that run for long turn it on once their modules are loaded.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.execution.signals import alarms_held, interruptible
from sweeper.options import COMPLETE, FAILURES, STOPPED, STORAGE, WRONG_INPUT, read_options
from sweeper.run_options import RunOptions
from trials.called import reader_has_gone
from trials.errors import StorageError, UserError
from trials.storage.sweep_path import storage_place, sweep_path
from trials.system.streams import as_command, last_to_the_end
from trials.system.user_path import user_path

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["COMPLETE", "FAILURES", "STOPPED", "STORAGE", "WRONG_INPUT", "main"]


def main(arguments: Sequence[str] | None = None, *, submitted: bool = False) -> int:
    """Run a command line and return the exit code: 0 complete, 1 some trial failed, 2 wrong input, 74 the storage errs,
    130 stopped.

    With ``--exit-zero-on-failed-trials``, a sweep that has ended gives 0 whatever its trials did.
    ``submitted``: the arguments came through ``ray submit``, which passes them unquoted through a shell.
    """
    if arguments is None:
        return as_command(lambda: main(sys.argv[1:], submitted=submitted))
    command: Callable[[argparse.Namespace, Console], int] = _run
    try:
        options = read_options(arguments, submitted=submitted)
        given = [name for name in COMMANDS if getattr(options, name) not in (None, False)]
        if len(given) > 1 and given != ["figure", "report"]:  # --figure is a part of a --report
            said = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UserError(f"{said} are commands of their own: give one of them")
        command = COMMANDS[given[0]] if given else _run
        from sweeper.console import make_console  # imports rich, which --help does not need

        return command(options, make_console())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return STORAGE
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        return STOPPED
    except OSError as error:
        if isinstance(error, BrokenPipeError) and reader_has_gone():  # that is no storage
            return FAILURES
        return _end_by(error, is_run=command is _run)


def _end_by(error: OSError, *, is_run: bool) -> int:
    """Say what could not be read or written, and return the exit code: what a person must mend is wrong input of a
    command that runs no trials.

    Raises:
        OSError: it is no error of a storage.
    """
    from trials.storage.outages import errs, is_by_hand, line_of

    if not errs(error):
        raise error
    by_hand = is_by_hand(error) and not is_run
    print(f"error: {line_of(error, by_hand=by_hand)}", file=sys.stderr)
    return WRONG_INPUT if by_hand else STORAGE


def _list_spaces(options: argparse.Namespace, console: Console) -> int:
    from sweeper.space.space_files import list_spaces

    for name, about, profiles in list_spaces():
        console.print(f"{name}: {about}" + (f" (profiles: {', '.join(profiles)})" if profiles else ""))
    return COMPLETE


def _list(options: argparse.Namespace, console: Console) -> int:
    from sweeper.control import list_sweeps

    list_sweeps(storage_place(options.storage), console)
    return COMPLETE


def _show(options: argparse.Namespace, console: Console) -> int:
    path = sweep_path(options.storage, options.show, "--show")
    if options.watch is not None:
        from sweeper.control import watch_sweep

        with interruptible():
            watch_sweep(path, console, options.watch)
        return COMPLETE
    from sweeper.results.report import show

    show(path, console)
    return COMPLETE


def _compare(options: argparse.Namespace, console: Console) -> int:
    from sweeper.paired.show_comparison import named_sweep, show_comparison

    first, second = (named_sweep(options.storage, name) for name in options.compare)
    show_comparison(first, second, console)
    return COMPLETE


def _report(options: argparse.Namespace, console: Console) -> int:
    from sweeper.report.gathered import gathered
    from sweeper.report.written import require_page_file, write_report

    gc.enable()
    to = None if options.to is None else user_path(options.to, "--to")
    if to is not None:
        require_page_file(to)
    with interruptible():
        written = write_report(gathered(sweep_path(options.storage, options.report, "--report")), to)
    console.print(str(written), markup=False)
    return COMPLETE


def _figure(options: argparse.Namespace, console: Console) -> int:
    from sweeper.report.figure_command import write_asked_figure

    gc.enable()
    with interruptible():
        write_asked_figure(sweep_path(options.storage, options.report, "--report"), options, console)
    return COMPLETE


def _admit(options: argparse.Namespace) -> list[str]:
    """Admit the plug-ins of ``--plugins`` and return them as spaces hold them."""
    from trials.plugins.importing import admit_listed

    found: list[str] = admit_listed({}, Path.cwd(), options.plugins).get("plugins", [])
    return found


def _describe(options: argparse.Namespace, console: Console) -> int:
    from sweeper.describe.topics import print_pages

    _admit(options)
    print_pages(options.describe, console)
    return COMPLETE


def _schema(options: argparse.Namespace, console: Console) -> int:
    from sweeper.describe.schema import schema_text

    print(schema_text(), end="")
    return COMPLETE


def _init(options: argparse.Namespace, console: Console) -> int:
    from sweeper.describe.new_space import write_space

    write_space(options.init, options.data or "cifar10", options.to, console, plugins=_admit(options))
    return COMPLETE


def _dashboard(options: argparse.Namespace, console: Console) -> int:
    from sweeper.dashboard import serve

    gc.enable()
    _admit(options)
    with interruptible():
        serve(sweep_path(options.storage, options.dashboard, "--dashboard"), console)
    return COMPLETE


def _serve(options: argparse.Namespace, console: Console) -> int:
    from sweeper.report.served import serve_report

    gc.enable()
    _admit(options)
    with interruptible():
        serve_report(sweep_path(options.storage, options.serve, "--serve"), console)
    return COMPLETE


def _cancel(options: argparse.Namespace, console: Console) -> int:
    from sweeper.control import cancel

    gc.enable()
    cancel(sweep_path(options.storage, options.cancel, "--cancel"), console)
    return COMPLETE


def _pack(options: argparse.Namespace, console: Console) -> int:
    from sweeper.control import pack_sweep

    gc.enable()
    with interruptible():
        pack_sweep(sweep_path(options.storage, options.pack, "--pack"), console)
    return COMPLETE


def _run(options: argparse.Namespace, console: Console) -> int:
    from sweeper.screen.activity import doing

    given = RunOptions.of_command(options)
    with alarms_held(), interruptible():
        if not given.dry_run:
            last_to_the_end()
        with doing(console, "importing torch and Optuna"):
            from sweeper.driver import sweep

        gc.enable()
        code = sweep(given, console)
    return COMPLETE if code == FAILURES and options.exit_zero_on_failed_trials else code


COMMANDS: dict[str, Callable[[argparse.Namespace, Console], int]] = {
    "list_spaces": _list_spaces,
    "describe": _describe,
    "schema": _schema,
    "init": _init,
    "list": _list,
    "show": _show,
    "figure": _figure,
    "report": _report,
    "compare": _compare,
    "serve": _serve,
    "dashboard": _dashboard,
    "cancel": _cancel,
    "pack": _pack,
    "resume": _run,
}
"""Commands by the option that selects them; only one may be given. Without any, a space is swept."""
