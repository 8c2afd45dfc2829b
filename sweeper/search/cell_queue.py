"""The queue of the cells whose searches are to be asked for a sample: the cell with the fewest samples comes first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from sweeper.search.cells.cell_search import CellSearch


class CellQueue:
    """The cells that want a sample, by their number of samples and then by their position in the grid.

    A cell whose next sample depends on trials that have not ended waits outside the queue until :meth:`update` finds it
    ready. So does a cell that has been taken, until it is updated.

    Args:
        searches: by cell key, in the grid's order.
        owing: whether epochs are kept for what points still lack that have begun.
    """

    def __init__(self, searches: Mapping[str, CellSearch], *, owing: bool = False) -> None:
        self._searches, self._owing = searches, owing
        self._position = {key: i for i, key in enumerate(searches)}
        self._keys = list(searches)
        self._queued: dict[int, int] = {}  # by position, the number of samples with which the cell was put in
        self._heap: list[tuple[int, int]] = []  # entries that are not those of _queued are out of date
        self._waiting: set[str] = set()
        self._owed_by = {key: search.owed_epochs for key, search in searches.items()} if owing else {}
        self._owed = sum(self._owed_by.values())
        for key, search in searches.items():
            if search.wants:
                self._put(key)

    def __bool__(self) -> bool:
        """Whether a cell is queued or waits."""
        return bool(self._queued or self._waiting)

    def _put(self, key: str) -> None:
        position, count = self._position[key], self._searches[key].count
        if self._queued.get(position) != count:
            self._queued[position] = count
            heapq.heappush(self._heap, (count, position))

    def update(self, key: str) -> None:
        """Put a cell into the queue if it wants a sample, or take it out. Call after it was asked or told something."""
        search = self._searches[key]
        if self._owing:
            owed = search.owed_epochs
            self._owed += owed - self._owed_by[key]
            self._owed_by[key] = owed
        if not search.wants:
            self._waiting.discard(key)
            self._queued.pop(self._position[key], None)
        elif key not in self._waiting or search.ready:
            self._waiting.discard(key)
            self._put(key)

    def take(self, fits: Callable[[int], bool]) -> str | None:
        """Take out the first cell that is ready and whose next trial fits; None if there is none.

        Cells before it whose next trial does not fit stay: it may fit once running trials have ended.

        Args:
            fits: whether a trial of so many epochs may be run.
        """
        passed: list[tuple[int, int]] = []
        taken = None
        while self._heap and taken is None:
            entry = heapq.heappop(self._heap)
            count, position = entry
            if self._queued.get(position) != count:
                continue
            key = self._keys[position]
            if not self._searches[key].ready:
                del self._queued[position]
                self._waiting.add(key)
            elif not fits(self._epochs(key)):
                passed.append(entry)
            else:
                del self._queued[position]
                taken = key
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return taken

    def none_fits(self, fits: Callable[[int], bool]) -> bool:
        """Whether cells are queued, but the next trial of none of them fits."""
        if not self._queued:
            return False
        return not any(fits(self._epochs(self._keys[at])) for at in self._queued)

    def _epochs(self, key: str) -> int:
        """The epochs that must be left for a cell's next trial to be run."""
        search = self._searches[key]
        return search.next_epochs + (self._owed if self._owed and not search.next_is_owed else 0)
