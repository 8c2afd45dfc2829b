"""Keeps ``searches.json`` up to date while a plan goes on, and says which searches have ended early."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from sweeper.folder.search_ends import read_shorter, write_shorter
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.cells.cell_search import CellSearch


class ShorterSearches:
    """The searches of a plan that have fewer samples than the space gives them.

    Attributes:
        notes: lines on searches that have ended early; the display takes them from here.
    """

    def __init__(self, folder: SweepFolder, searches: Mapping[str, CellSearch]) -> None:
        self._path, self._searches = folder.path, searches
        self.notes: deque[str] = deque()
        self._found = {key: shorter for key, search in searches.items() if (shorter := search.shorter) is not None}
        self._written = read_shorter(folder.path)
        self._write()

    def update(self, cell: str) -> None:
        """Take note of a cell whose search was asked or told something."""
        before, now = self._found.get(cell), self._searches[cell].shorter
        if now == before:
            return
        if now is None:
            del self._found[cell]
        else:
            self._found[cell] = now
        if now is not None and now.over:
            self.notes.append(f"{cell or 'the search'}: ended {now}")
        self._write()

    def _write(self) -> None:
        """Write what has changed; where the storage is full, the next change does it."""
        if self._found == self._written:
            return
        try:
            write_shorter(self._path, self._found)
        except OSError:
            return
        self._written = dict(self._found)
