"""Turns errors of users' code into messages that name the code and the line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trials.errors import UserError, one_line

PROJECT = Path(__file__).resolve().parents[1]


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn whatever users' code raises within the context into a UserError with its place.

    Raises:
        UserError: the code has failed; the message begins with ``what``.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
        at = f" ({_place(frames[-1])})" if frames else ""
        raise UserError(f"{what}: {type(error).__name__}: {one_line(' '.join(str(error).split()))}{at}") from error


def _place(frame: traceback.FrameSummary) -> str:
    """Where an error was raised, with the source line if it is this project's: the arguments of a call did not fit."""
    place = f"{frame.filename} line {frame.lineno}"
    return f"{place}: {frame.line}" if Path(frame.filename).is_relative_to(PROJECT) and frame.line else place


def _is_ours(file: str) -> bool:
    path = Path(file)
    return file.startswith("<frozen") or path.parent == Path(__file__).parent or path.parts[-2:-1] == ("importlib",)
