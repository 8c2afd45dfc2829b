"""What each tracker has been told: its run of every trial, and the number of the last row, in a file beside its logs.

A trial that goes on after a kill sends the rows since its last commit again, so trackers are asked for neither: the
file says which rows are new. It is written after a row was told. A kill between the two tells that row again, under the
same step; no row is left out.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.safe_read import read_plain

TOLD_BYTES = 1 << 30
"""Most bytes of the file, in which each row takes a line of about 60 bytes."""


@dataclass
class Told:
    """What a tracker has been told of a trial.

    Attributes:
        run: what the tracker calls its run of the trial: 32 hexadecimal digits, new for each folder of a sweep, so that
            equal trials of two sweeps stay two runs.
        rows: number of the last row that it was told.
        ended: whether it was told that the trial is over.
        attached: whether its run has the trial's artifacts.
    """

    run: str
    rows: int = 0
    ended: bool = False
    attached: bool = False


class ToldRows:
    """A file of JSON lines, one for each change; made from what it holds so far.

    Raises:
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = _read(path)
        self._stream: TextIO | None = None
        self._writing = threading.Lock()  # trials begin in the driver's thread, their rows are told in the tracker's

    def open(self) -> None:
        """Begin to write, with one line for each trial."""
        files.make_folder(self.path.parent)
        lines = (json.dumps({"trial": name, **vars(told)}) + "\n" for name, told in self._known.items())
        files.write(self.path, "".join(lines).encode())
        self._stream = self.path.open("a", buffering=1, encoding="utf-8")

    def close(self) -> None:
        """End to write."""
        with self._writing:
            if self._stream is not None:
                self._stream.close()
            self._stream = None

    def known(self, trial_id: str) -> bool:
        """Whether an earlier run of the sweep has begun to tell of a trial."""
        return trial_id in self._known

    def ended(self, trial_id: str) -> bool:
        """Whether the end of a trial was told."""
        told = self._known.get(trial_id)
        return told is not None and told.ended

    def begin(self, trial_id: str) -> Told:
        """Return what was told of a trial that begins or goes on."""
        told = self._known.get(trial_id)
        if told is None or told.ended:
            told = Told(told.run if told else uuid.uuid4().hex, told.rows if told else 0)
            self._known[trial_id] = told
            self._write(trial_id, vars(told))
        return told

    def row(self, trial_id: str, number: int) -> None:
        """Note that a row was told."""
        self._known[trial_id].rows = number
        self._write(trial_id, {"rows": number})

    def end(self, trial_id: str) -> None:
        """Note that the end of a trial was told."""
        self._known[trial_id].ended = True
        self._write(trial_id, {"ended": True})

    def attached(self, trial_id: str) -> bool:
        """Whether the artifacts of a trial were attached to its run."""
        told = self._known.get(trial_id)
        return told is not None and told.attached

    def attach(self, trial_id: str) -> None:
        """Note that the artifacts of a trial were attached."""
        self._known[trial_id].attached = True
        self._write(trial_id, {"attached": True})

    def rows_of(self, trial_id: str) -> int:
        """Number of the last row of a trial that was told."""
        told = self._known.get(trial_id)
        return told.rows if told else 0

    def unfinished(self) -> list[str]:
        """Trials of which some was told, or was to be told, but not the end."""
        return [trial_id for trial_id, told in self._known.items() if not told.ended]

    def _write(self, trial_id: str, fields: dict[str, Any]) -> None:
        with self._writing:
            if self._stream is not None:
                self._stream.write(json.dumps({"trial": trial_id, **fields}) + "\n")


def _read(path: Path) -> dict[str, Told]:
    """What was told, by trial; a line that a kill has cut off, or that no run has written, counts for nothing."""
    found: dict[str, Told] = {}
    for line in _lines(path):
        fields = {name: line[name] for name in _IS_VALID if name in line}
        if all(_IS_VALID[name](value) for name, value in fields.items()):
            told = found.setdefault(line["trial"], Told(""))
            for name, value in fields.items():
                setattr(told, name, value)
    return {trial_id: told for trial_id, told in found.items() if told.run}


_IS_VALID: dict[str, Callable[[Any], bool]] = {
    "run": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) is not None,
    "rows": lambda value: type(value) is int and value >= 0,
    "ended": lambda value: isinstance(value, bool),
    "attached": lambda value: isinstance(value, bool),
}
"""Whether a field of a line may be what it is."""


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = read_plain(path, TOLD_BYTES).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except DamagedFile as damage:
        raise OSError(str(damage)) from None
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and isinstance(content.get("trial"), str):
            yield content


def rows_from(rows: Sequence[dict[str, Any]], first: int) -> list[dict[str, Any]]:
    """Rows of the table ``epochs`` from position ``first`` on, as results: without nulls, with their number from 1."""
    return [
        {**{key: value for key, value in row.items() if value is not None}, "training_iteration": number}
        for number, row in enumerate(rows[first:], start=first + 1)
    ]
