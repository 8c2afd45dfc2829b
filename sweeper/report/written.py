"""The report as a file of the sweep's folder."""

from __future__ import annotations

from sweeper.report.gathered import Gathered, gathered
from sweeper.report.page import page_text
from trials.storage import files
from trials.storage.place import Place

REPORT_NAME = "report.html"


def write_report(found: Gathered) -> Place:
    """Write the page of a sweep to ``report.html`` in its folder, atomically, and return where it is.

    Raises:
        OSError: it cannot be written.
    """
    path: Place = found.sweep.path / REPORT_NAME
    files.write(path, page_text(found).encode())
    return path


def report_line(path: Place) -> str:
    """Write a sweep's report and return a line that says where it is, or why there is none. Raises nothing of that."""
    try:
        return f"report: {write_report(gathered(path))}"
    except Exception as error:  # noqa: BLE001  results are committed, and no fault of a drawing may hide them
        return f"report: {REPORT_NAME} was not written ({said_of(error)})"


def said_of(error: Exception) -> str:
    """An error as part of a line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, OSError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
