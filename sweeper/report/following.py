"""A running sweep, gathered again whenever something of it has changed."""

from __future__ import annotations

from typing import Any

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.report.gathered import Gathered, gathered_of
from sweeper.results.tables import TablesReader
from trials.errors import DamagedFile
from trials.storage.leases.lease import Lease
from trials.storage.place import Place
from trials.storage.safe_read import read_plain


class FollowedSweep:
    """A sweep that is looked at again and again. It keeps in memory what has not changed, and writes nothing.

    ``as_written``: the tables as the sweep's driver has written them last.
    """

    def __init__(self, path: Place, *, as_written: bool = False) -> None:
        self.path = path
        self._folder, self._tables = SweepFolder(path), TablesReader(path, as_written=as_written)
        self._seen: tuple[Any, ...] | None = None

    def look(self) -> Gathered | None:
        """Return the sweep as it is now; None if nothing has changed since the last look.

        Raises:
            UserError: there is no such sweep, or its ``sweep.yaml`` is damaged or of another version.
            OSError: the storage cannot be read; the next look reads what has changed until then.
        """
        signs = self._signs()  # before the reading: what changes meanwhile counts as unseen
        if signs == self._seen:
            return None
        found = gathered_of(self._tables.read())
        self._seen = None if found.sweep.damaged else signs  # damaged files may be about to be replaced
        return found

    def _signs(self) -> tuple[Any, ...]:
        owner = Lease(self.path / "lock").owner()
        driver = None if owner is None else (owner.token, owner.surely_dead)
        contents = [_content(self.path / name) for name in ("sweep.yaml", "searches.json")]
        return (self._folder.stamps(), driver, *contents)


def _content(path: Place) -> bytes | None:
    try:
        return read_plain(path)
    except (FileNotFoundError, DamagedFile):
        return None
