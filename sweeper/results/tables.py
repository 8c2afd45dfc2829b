"""Load and write a sweep's tables, derived from what its trials have committed; docs/tables.md documents the columns.

The files under ``tables/`` are a cache: a trial that has committed nothing since they were written is read from them,
every other one from its own rows. So :func:`load` returns the same with current, old or no files. They can be deleted
at any time.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Collection
from contextlib import suppress

import pyarrow.parquet as pq

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.results.column_types import TABLES_SCHEMA, digest_of_columns
from sweeper.results.frames import SweepTables
from sweeper.results.table_cache import FinishedRecords, TableCache, gather, tables_as_written
from trials.errors import DamagedFile, UserError
from trials.storage import files
from trials.storage.place import Place, place
from trials.storage.rows import TABLES as ROW_TABLES
from trials.storage.safe_read import require_own_folder
from trials.storage.sealed import seal


def load(path: str | Place) -> SweepTables:
    """Return the tables of the sweep at ``storage/name``, a path or ``s3://bucket/prefix/name``; it may be running.

    Writes nothing. Damaged files are left out, with a warning that lists them.

    Raises:
        UserError: ``path`` is not a sweep's folder.
    """
    sweep = read(path)
    if sweep.damaged:
        warnings.warn("left out of the tables: " + "; ".join(sweep.damaged), stacklevel=2)
    return sweep


def read(path: str | Place, rows: Collection[str] = ROW_TABLES) -> SweepTables:
    """Like :func:`load`, but without the warning: the caller checks :attr:`SweepTables.damaged`.

    ``rows``: which tables of rows to read; the others are empty. ``trials`` and ``lineage`` are always read.
    """
    return TablesReader(path, rows).read()


class TablesReader:
    """Reads a sweep's tables again and again, as while it runs: what has not changed since stays in memory.

    Args:
        path: the sweep's folder, ``storage/name`` or ``s3://bucket/prefix/name``.
        rows: which tables of rows to read, as for :func:`read`.
        as_written: read what the sweep's driver has written last, and no trial's own files.
    """

    def __init__(self, path: str | Place, rows: Collection[str] = ROW_TABLES, *, as_written: bool = False) -> None:
        self._path, self._rows, self._as_written = path, tuple(rows), as_written
        self._folder = SweepFolder(place(path))
        self._cache: TableCache | None = None

    def read(self) -> SweepTables:
        """Return the tables as they are now, reading only trials that have changed since the last call; writes nothing.

        Raises:
            UserError: the path is not a sweep's folder.
        """
        folder = self._folder
        if not folder.trials.is_dir() and not (folder.path / "sweep.yaml").is_file():
            raise UserError(
                f"{str(self._path)!r} is not a sweep's folder (it holds neither trials/ nor sweep.yaml): give "
                "storage/name, e.g. results/bip_unstructured"
            )
        if self._as_written:
            return tables_as_written(folder).sweep(folder.path)
        gathered = gather(folder, self._rows, self._cache)
        self._cache = gathered.cache()
        return gathered.sweep(folder.path)


def compact_tables(folder: SweepFolder, known: FinishedRecords | None = None) -> None:
    """Write the tables to ``tables/``, each by rename. Writes nothing if nothing has changed.

    ``known``: the records of finished trials by name, where the process has them; None of others.

    ``tables/manifest.json`` lists the trials in the files, with stamps of their last commits, and the files' hashes. It
    is written last, so that a reader never mixes files of two compactions. Files whose columns an older or newer
    version described otherwise are not read.
    """
    gathered = gather(folder, known=known)
    if gathered.current:
        return
    with suppress(FileNotFoundError):
        try:
            require_own_folder(folder.tables)
        except DamagedFile:  # such as a link: what is derived is written into the sweep's own folder
            files.set_aside(folder.tables)
    files.make_folder(folder.tables)
    hashes = {}
    for name, table in gathered.tables.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        hashes[name] = files.digest(buffer.getvalue())
        files.write(folder.tables / f"{name}.parquet", buffer.getvalue())
    versions = {"schema": TABLES_SCHEMA, "columns": digest_of_columns()}
    manifest = {**versions, "tables": hashes, "trials": gathered.stamps}
    files.write(folder.tables / "manifest.json", seal(manifest))
