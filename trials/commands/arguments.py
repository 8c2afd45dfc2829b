"""Arguments that several commands of ``python -m trials`` take."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trials.called import trial_command
from trials.errors import DamagedFile, UserError
from trials.methods.parsing import parse_stored
from trials.networks.stored import status
from trials.plugins.importing import admit_listed
from trials.running.environment import other_code
from trials.storage.config_file import read_config
from trials.storage.place import Place
from trials.storage.rows import FINISHED
from trials.storage.trial_folder import TrialFolder
from trials.system.machine import usable_threads


def command_parser(name: str, **options: Any) -> argparse.ArgumentParser:
    """The parser of a command of ``python -m trials``, with ``--plugins``; other options are argparse's."""
    parser = argparse.ArgumentParser(prog=f"{trial_command()} {name}".strip(), **options)
    parser.add_argument("--plugins", action=_Admit, default=[], metavar="PATH_OR_MODULE",
                        help="your own code: a folder, a .py file or a module; repeatable")  # fmt: skip
    return parser


class _Admit(argparse.Action):
    """Admits a plug-in at once, so that stored configs that name its objects can be read, and collects them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        admit_listed({}, Path.cwd(), [str(values)])
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), str(values)])


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, by default as many as torch uses, but at most the cores that this process may use."""
    parser.add_argument("--threads", type=at_least_1, default=usable_threads(), help="number of CPU threads")


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-dir``, by default the folder that the trial's config names."""
    parser.add_argument("--data-dir", metavar="DIR", help="where the trial's data lie now; default: as its config says")


def note_unfinished(trials: Iterable[Place]) -> int:
    """Say on stderr which trials are not complete: what is read of them is the last network that they committed.

    Returns:
        The exit code of a command that reads them: 1 if one of them has not finished, so that a script stops; else 0.
        A trial that its search stopped early (``pruned``) has finished. Files, and folders without a trial, count as
        finished.

    Raises:
        UserError: a trial's state cannot be read.
    """
    code = 0
    for trial in trials:
        try:
            found = status(trial, committed=True) if trial.is_dir() else None
        except DamagedFile as damage:
            raise UserError(f"{trial.name} cannot be read: {damage}") from None
        if found not in (None, "complete"):
            print(f"note: {trial.name} is {found}: this is its last committed network", file=sys.stderr)
            code |= found not in FINISHED
        if found is not None:
            _note_other_code(trial)
    return code


def _note_other_code(trial: Place) -> None:
    """Say on stderr if the code that a trial names is not what it was computed with.

    The command itself reports what it cannot read.
    """
    with suppress(OSError, ValueError, KeyError, TypeError, UserError, DamagedFile):
        config = parse_stored(read_config(trial).config)
        state = TrialFolder(trial).state()
        for changed in other_code(config, state.computed_in if state else ()):
            print(f"note: {trial.name} was computed with other code: {changed}", file=sys.stderr)


def require_folder(path: Path) -> None:
    """Require that a folder can be written, without making it.

    Raises:
        UserError: it cannot.
    """
    with writing(path, "folder"):
        there = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), path)
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "has no permission to write" if there.is_dir() else "is a file"
        raise UserError(f"--to is {str(path)!r}, but must be a folder that can be written, and {str(there)!r} {reason}")


@contextmanager
def writing(to: Path, kind: str = "file") -> Iterator[None]:
    """Blame what cannot be written meanwhile on ``--to``, a ``file`` or a ``folder``.

    Raises:
        UserError: something could not be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"--to is {str(to)!r}, but must be a {kind} that can be written ({error})") from None


def real_number(text: str) -> float:
    """The finite number that an argument gives; argparse names the argument if it is none."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r}, but must be a number")
    return found


def at_least_1(text: str) -> int:
    """The whole number that an argument gives; argparse names the argument if it is none of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, but must be a whole number of at least 1")
    return int(text)
