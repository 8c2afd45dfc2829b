"""Write a sweep's report to a file."""

from __future__ import annotations

import os
from pathlib import Path

from sweeper.report.gathered import Gathered, gathered_of
from sweeper.report.page import report_html
from sweeper.results.frames import SweepTables
from trials.errors import UserError
from trials.storage import files
from trials.storage.place import Place

REPORT = "report.html"
"""Name of the report in a sweep's folder."""

_PAGES = (".html", ".htm")


def write_report(found: Gathered, to: Path | None = None) -> Place:
    """Write the page and return its path; a file that is there is replaced at once, never half.

    Args:
        found: the sweep.
        to: the file; by default ``report.html`` in the sweep's folder.

    Raises:
        UserError: the file cannot be written, or its name does not end as that of a page.
    """
    target = found.sweep.path / REPORT if to is None else to
    if to is not None:
        require_page_file(to)
    content = report_html(found).encode()
    try:
        files.write(target, content)
    except OSError as error:
        way = "free space, or " if files.is_full(error) else ""
        raise UserError(
            f"the report cannot be written to {target} ({error}): {way}name another file with --to"
        ) from None
    return target


def require_file(to: Path) -> None:
    """Refuse a path that is no file in a folder that can be written, before anything is read.

    Raises:
        UserError: it is not.
    """
    folder = to.absolute().parent
    rule = f"--to is {str(to)!r}, but must be a file in a folder that can be written"
    if to.is_dir():
        raise UserError(f"{rule}, and this is a folder: give a file's name in it")
    if not folder.is_dir():
        raise UserError(f"{rule}, and there is no folder {str(to.parent)!r}: make it, or name another one")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{rule}, and {str(to.parent)!r} is read-only for you: name another one")


def require_page_file(to: Path) -> None:
    """Refuse, before anything is read, a path that a report cannot be written to: a page under a picture's name, too.

    Raises:
        UserError: it is not the path of a page, or its folder is missing or cannot be written.
    """
    require_file(to)
    if to.suffix.lower() not in _PAGES:
        raise UserError(
            f"--to is {str(to)!r}, but a report is a page and must end in {' or '.join(_PAGES)} (pictures and numbers: "
            "add --figure NAME, e.g. --figure accuracy_density)"
        )


def report_line(sweep: SweepTables) -> str:
    """Write a sweep's report into its folder and return a line: where it is, or why it could not be written."""
    path = sweep.path
    try:
        files.write(path / REPORT, report_html(gathered_of(sweep)).encode())
    except Exception as error:  # noqa: BLE001  the results are committed, and no fault of a drawing may hide them
        return f"report: {REPORT} was not written ({said_of(error)})"
    return f"report: {path / REPORT}"


def said_of(error: Exception) -> str:
    """An error as part of a line."""
    text = " ".join(str(error).split())
    plain = isinstance(error, (OSError, UserError)) and text
    return text if plain else f"{type(error).__name__}: {text}".removesuffix(": ")
