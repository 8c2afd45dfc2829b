"""Options and exit codes of the command line, and checks for arguments that a shell has changed.

`ray submit` joins the arguments with spaces, unquoted, and a shell on the head splits and expands them again. Such
changes can be detected only if they leave traces: words that belong to no option are the rest of a value that was
split. A value with characters that a shell may change is refused even if it arrived unchanged, because a new file in
the home folder could make it expand the next time. A local command line was quoted by its user: any value is accepted.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from trials.called import sweep_command
from trials.errors import UserError, nearest_name
from trials.version import __version__

COMPLETE, FAILURES, WRONG_INPUT, STORAGE, STOPPED = 0, 1, 2, os.EX_IOERR, 130
"""Exit codes. ``STORAGE``, 74: the storage has erred for longer than ``storage_patience_s``."""

WATCH_S, LEAST_WATCH_S = 5.0, 0.5
"""Seconds between two looks of ``--show NAME --watch``: by default, and at least."""

_SURVIVES = re.compile(r"[A-Za-z0-9_./:=,@+~%^\[\]-]+")
"""Words that a shell passes on unchanged. Brackets, which write lists, are also file patterns: if the shell replaces
one by a file name, the value is no longer a list, and is refused for that."""

_ADDRESS = re.compile(r"[A-Za-z0-9_.:/\[\]-]+")

_QUOTED = "a value with spaces needs quotes"
_UNQUOTED = (
    "ray submit passes the line unquoted through a shell on the head, which splits values at spaces, expands "
    "{a,b}, * and ? and drops quotes and $NAMES that are not set: use letters, digits and _./:=,@+~%^[]- only, "
    "and put the rest into a space file"
)


class _Parser(argparse.ArgumentParser):
    """Raises UserError for wrong arguments, which is printed in one line like all other errors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")


def parser() -> argparse.ArgumentParser:
    """Return the argument parser. No option has a name that ``ray submit`` would take for one of its own."""
    p = _Parser(
        prog=sweep_command(),
        description="Sweep pruning methods over sparsities and hyperparameters. The same command again resumes.",
        epilog="Exit codes: 0 complete, 1 some trials failed, 2 wrong input, 74 the storage did not work for "
        "storage_patience_s (the same command goes on), 130 stopped.",
        allow_abbrev=False,
    )
    p.add_argument("--space", metavar="NAME_OR_FILE", help="what to sweep: a name of --list-spaces, or a YAML file")
    p.add_argument("--profile", metavar="P", help="a profile of the space, e.g. demo")
    p.add_argument("--set", action="append", default=[], metavar="a.b=c", help="change the space")
    p.add_argument("--plugins", action="append", default=[], metavar="PATH_OR_MODULE",
                   help="your own code: a folder, a .py file or an installed module; repeatable")  # fmt: skip
    p.add_argument("--storage", default=os.environ.get("SWEEP_STORAGE", "results"), metavar="PLACE",
                   help="a path, or s3://BUCKET/PREFIX (default: $SWEEP_STORAGE, else results)")  # fmt: skip
    p.add_argument("--name", help="the sweep's folder in the storage (default: the space's name)")
    p.add_argument("--resume", metavar="NAME", help="continue a sweep as its own sweep.yaml has it; takes no --space")
    p.add_argument("--samples", type=int, metavar="N", help="samples per cell")
    p.add_argument("--max-concurrent", type=int, metavar="N", help="trials at once")
    p.add_argument("--max-hours", type=float, metavar="H", help="stop after H hours; the same command resumes")
    p.add_argument("--address", metavar="ADDR", help="a Ray cluster to join; 'local' starts a new one here")
    p.add_argument("--runtime-env", metavar="FILE", help="a YAML or JSON file with what Ray's workers get: env_vars, "
                   "pip, ...; no part of the sweep")  # fmt: skip
    p.add_argument("--serial", action="store_true", help="one trial at a time, in the order of the plan")
    p.add_argument("--dry-run", action="store_true", help="check everything and print what would run")
    p.add_argument("--estimate", action="store_true", help="measure the time of an epoch here: 20 steps of each stage")
    p.add_argument("--list-spaces", action="store_true", help="list the spaces that have a name")
    p.add_argument("--describe", nargs="?", const="", metavar="NAME", help="a method, model, data set, section, "
                   "sampler, ...: its fields, ranges and sources; alone: what there is")  # fmt: skip
    p.add_argument("--schema", action="store_true", help="print the JSON schema of spaces, for editors")
    p.add_argument("--init", metavar="METHOD", help="write a commented space for a method, to begin with")
    p.add_argument("--data", metavar="DATASET", help="of --init: the data set (default: cifar10)")
    p.add_argument("--to", metavar="FILE", help="of --init and --report: the file to write "
                   "(default: METHOD_DATASET.yaml; report.html in the sweep's folder)")  # fmt: skip
    _add_report_options(p)
    p.add_argument("--dashboard", metavar="NAME", help="show a sweep with optuna-dashboard, on this machine only")
    _add_beginning_and_end(p)
    p.add_argument("--list", action="store_true", help="list the sweeps of the storage, their progress and drivers")
    p.add_argument("--show", metavar="NAME", help="print a sweep's progress and results, also while it runs elsewhere")
    p.add_argument("--watch", type=float, nargs="?", const=WATCH_S, metavar="S", help="of --show: look again "
                   f"every S seconds (default: {WATCH_S:g}), until the sweep has ended")  # fmt: skip
    p.add_argument("--cancel", metavar="NAME", help="ask a sweep's driver, wherever it runs, to commit and stop")
    p.add_argument("--version", action="version", version=f"sparsity-sweeper {__version__}")
    return p


def _add_beginning_and_end(p: argparse.ArgumentParser) -> None:
    """Those that change what a run does first, and how it ends."""
    p.add_argument("--verify", action="store_true", help="first read every checkpoint, not only those that are needed")
    p.add_argument("--retry-failed", action="store_true", help="first allow trials that failed for good to run again")
    p.add_argument("--exit-zero-on-failed-trials", action="store_true", help="exit with 0, not 1, when the sweep has "
                   "ended and some trials have failed, for schedulers that run a failed job again")  # fmt: skip


def _add_report_options(p: argparse.ArgumentParser) -> None:
    """Those of reports and of their figures, and of what is done with a sweep afterwards."""
    p.add_argument(
        "--pack", metavar="NAME", help="put a sweep's finished trials into few files; all commands read them"
    )
    p.add_argument("--compare", nargs=2, metavar=("A", "B"), help="how sweep B differs from A, by cell, with "
                   "paired tests over seeds: two names or paths")  # fmt: skip
    p.add_argument("--report", metavar="NAME", help="write a sweep's report, one HTML file, also while it runs")
    p.add_argument("--serve", metavar="NAME", help="show a sweep's report in a browser, with rows as they come, "
                   "on this machine only")  # fmt: skip
    p.add_argument("--figure", metavar="FIGURE", help="of --report: write this figure of it alone, as .pdf, .svg or "
                   ".png, or its numbers as .csv, e.g. accuracy_density --to fig3.pdf")  # fmt: skip
    p.add_argument("--with", dest="with_", action="append", metavar="NAME=VALUE", help="of --figure: what it shows, "
                   "e.g. x=latency_ms_1 of pareto_front, cell=density=0.1 of learning_curves; repeatable")  # fmt: skip
    p.add_argument("--width", metavar="LENGTH", help="of --figure: 3.25in, 84mm, 8.4cm, 240pt (default: 345pt)")
    p.add_argument("--height", metavar="LENGTH", help="of --figure (default: what suits it)")
    p.add_argument("--font-size", metavar="PT", help="of --figure: of all text, in points (default: 8)")


def read_options(words: Sequence[str], *, submitted: bool = False) -> argparse.Namespace:
    """Parse the arguments of a command line; ``submitted``: they came through ``ray submit``.

    Raises:
        UserError: an argument is wrong, or a shell has detectably changed it or could change it.
    """
    if submitted:
        for option, value in _values(words):
            if value and not _SURVIVES.fullmatch(value):
                raise UserError(f"{option} is {value!r}, but {_UNQUOTED}")
    try:
        options, left = parser().parse_known_args(words)
    except UserError as error:
        raise UserError(f"{error}; {_UNQUOTED}") if submitted else error from None
    if left:
        text = f"unrecognized: {' '.join(map(repr, left))}"
        if all(word.startswith("--") for word in left):
            raise UserError(f"{text} (--help lists the options){_nearest_option(left[0])}")
        near = _nearest_option(left[0])
        raise UserError(f"{text}{near}; {_UNQUOTED if submitted else _QUOTED}")
    _check_figure(options)
    _require_owner("--data", options.data, {"--init METHOD": options.init})
    _require_owner("--to", options.to, {"--init METHOD": options.init, "--report NAME": options.report})
    if options.watch is not None:
        _check_watch(options.watch, options.show)
    check_texts(options.space, options.storage, options.profile, options.address)
    return options


def _check_figure(options: argparse.Namespace) -> None:
    _require_owner("--figure", options.figure, {"--report NAME": options.report})
    of = {"--figure FIGURE": options.figure}
    for option, given in (("--width", options.width), ("--height", options.height), ("--font-size", options.font_size)):
        _require_owner(option, given, of)
    _require_owner("--with", options.with_[0] if options.with_ else None, of)
    if options.figure is not None and options.to is None:
        raise UserError(f"--figure is {options.figure!r}, but --to FILE is missing: say where, e.g. --to figure.pdf")


def _require_owner(option: str, given: object, owners: Mapping[str, object]) -> None:
    """Refuse an option that is given without any of those that it belongs to."""
    if given is not None and not any(value is not None for value in owners.values()):
        raise UserError(
            f"{option} is {given!r}, but belongs to {' and '.join(owners)}: add that, or leave {option} out"
        )


def _check_watch(every_s: float, show: str | None) -> None:
    if show is None:
        raise UserError("--watch belongs to --show NAME: add that, or leave --watch out")
    if not LEAST_WATCH_S <= every_s < float("inf"):
        raise UserError(f"--watch is {every_s:g}, but must be seconds, at least {LEAST_WATCH_S:g}: --watch {WATCH_S:g}")


def check_texts(space: object, storage: str, profile: str | None, address: str | None) -> None:
    """Refuse empty options, and an address that is none.

    Raises:
        UserError: one of them is.
    """
    for option, found in (("--space", space), ("--storage", storage), ("--profile", profile)):
        if found == "":
            raise UserError(f"{option} is '', but must not be empty: leave it out, or give a value")
    if address is not None and not _ADDRESS.fullmatch(address):
        raise UserError(
            f"--address is {address!r}, but must be HOST:PORT of a Ray cluster's head, 'auto' for the cluster "
            "this machine belongs to, or 'local'"
        )


def _nearest_option(word: str) -> str:
    """What an option that does not exist may mean, as the end of a message; empty if nothing is near."""
    names = [option[2:] for action in parser()._actions for option in action.option_strings if option[:2] == "--"]
    return nearest_name(word.partition("=")[0][2:], names) if word.startswith("--") else ""


def _values(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield every value with the option that it follows or is joined to by ``=``; ``the line`` if there is none."""
    option = "the line"
    for word in words:
        if word.startswith("--"):
            option, _, value = word.partition("=")
            yield option, value
        else:
            yield option, word
            option = "the line"
