"""What of a sweep is packed, as of one manifest: its trials, with their rows and checkpoints."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trials.errors import DamagedFile
from trials.storage.outages import errs
from trials.storage.packed.index import require_index
from trials.storage.packed.manifest import MANIFEST, Manifest, Part, PartFile, is_trial_name, sha256_of
from trials.storage.packed.stacked_rows import RowSpan, rows_at, shapes_of
from trials.storage.place import Place
from trials.storage.safe_read import ROW_BYTES, read_plain, read_range

TABLES_KEPT, BYTES_KEPT = 12, 256 << 20
"""How many decoded Parquet files a process keeps of a sweep, and how many bytes of them: a few megabytes each, unless
the trials have very many rows. The last one stays in any case."""

_DECODED = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)
"""What damaged content raises where it is decoded; FileNotFoundError is told apart before."""


@dataclass(frozen=True)
class PackedTrial:
    """A packed trial.

    Attributes:
        config, state: contents of its ``config.json`` and ``state.json``.
        stamp: modification times in ns and sizes of both, as they lay in its folder.
        rows: where the rows of each table lie, and the name of the row file that they were read from.
        stored: where its checkpoint lies: file name, archive, offset and length in bytes; None without one.
    """

    packs: Packs
    part: Part
    id: str
    config: bytes
    state: bytes
    stamp: list[int]
    rows: dict[str, tuple[str, RowSpan]]
    stored: tuple[str, str, int, int] | None

    def table(self, table: str, name: str) -> Any:
        """Its rows of a table, which were in the row file ``name``; None if they are not here.

        Raises:
            DamagedFile: the file that holds them is damaged.
            FileNotFoundError: the file is gone: a later manifest names another.
        """
        there = self.rows.get(table)
        if there is None or there[0] != name or table not in self.part.rows:
            return None
        file = self.part.rows[table]
        try:
            of_all, shapes = self.packs.table(file)
            return rows_at(of_all, shapes, there[1], self.id)
        except FileNotFoundError:
            raise
        except _DECODED as error:
            if errs(error):
                raise
            raise DamagedFile(f"{self.packs.path / file.name} is damaged ({_line(error)})") from None

    def checkpoint(self, name: str) -> bytes | None:
        """The content of its checkpoint ``name``, not verified: its name has its hash. None if it is not here.

        Raises:
            FileNotFoundError: the archive is gone: a later manifest names another.
            DamagedFile: something else lies at its place.
        """
        if self.stored is None or self.stored[0] != name:
            return None
        _, archive, offset, length = self.stored
        size = next((file.size for file in self.part.archives if file.name == archive), 0)
        if offset < 0 or length < 0 or offset + length > size:
            raise DamagedFile(f"{self.packs.path / archive} has no bytes {offset} to {offset + length}, only {size}")
        return read_range(self.packs.path / archive, offset, length)


class Packs:
    """The packed trials of a sweep. Safe to use from several threads.

    Attributes:
        path: the folder ``packed``.
        manifest: what counts.
        stored: what the file says, which may be older; None if it is missing or damaged.
        damaged: a line for what is wrong with the manifest, and one for each part whose index cannot be read, nor its
            copy; complete after the first look-up.
    """

    def __init__(self, path: Place, manifest: Manifest, damage: str = "", stored: Manifest | None = None) -> None:
        self.path, self.manifest, self.stored = path, manifest, stored
        self.manifest_damage = damage
        self.damaged: list[str] = [damage] if damage else []
        self._places: dict[str, tuple[Part, int]] | None = None
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """Names of the packed trials, by part."""
        return list(self._found())

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._found()

    def find(self, trial_id: str) -> PackedTrial | None:
        """A trial by its name; None if it is not packed. Raises FileNotFoundError if a file is gone."""
        place = self._found().get(trial_id)
        return None if place is None else self._trial(*place)

    def names_of(self, part: Part) -> list[str]:
        """Names of the trials that lie in a part."""
        return [name for name, (of, _) in self._found().items() if of.number == part.number]

    def each(self, names: Iterable[str] | None = None) -> Iterator[PackedTrial]:
        """Trials by part, so that every file is read once; those of ``names`` that are packed, or all."""
        found = self._found()
        wanted = found if names is None else [name for name in names if name in found]
        for name in sorted(wanted, key=lambda name: (found[name][0].number, found[name][1])):
            yield self._trial(*found[name])

    def stamps(self) -> Iterator[tuple[str, list[int]]]:
        """Each packed trial with its stamp."""
        found = self._found()
        there = {part.number for part, _ in found.values()}
        for part in (part for part in self.manifest.parts if part.number in there):
            index = self.index(part)
            names, stamps = index["trial"].to_pylist(), index["stamp"].to_pylist()
            for row, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
                if found.get(name) == (part, row):
                    yield name, stamp

    def part_of(self, trial_id: str) -> int:
        """The number of a trial's part, to read trials part by part; 0 if it is not packed."""
        place = self._found().get(trial_id)
        return 0 if place is None else place[0].number

    def table(self, file: PartFile) -> Any:
        """A Parquet file of a part: its table, with its shapes where it holds rows.

        Raises:
            DamagedFile: its content is not the one that the manifest names.
            FileNotFoundError: it is gone.
        """
        with self._lock:
            if file.name in self._kept:
                self._kept.move_to_end(file.name)
                return self._kept[file.name]
        table = _decoded(self.path, file)
        found = (table, shapes_of(table)) if file.name.startswith("rows-") else table
        with self._lock:
            self._kept[file.name] = found
            self._sizes[file.name] = table.nbytes
            while len(self._kept) > TABLES_KEPT or (len(self._kept) > 1 and sum(self._sizes.values()) > BYTES_KEPT):
                oldest, _ = self._kept.popitem(last=False)
                del self._sizes[oldest]
        return found

    def index(self, part: Part) -> Any:
        """The index of a part, or its copy if it is damaged. Raises DamagedFile if both are."""
        try:
            return self.table(part.index)
        except (DamagedFile, FileNotFoundError) as damage:
            try:
                return self.table(part.copy)
            except FileNotFoundError:
                if isinstance(damage, FileNotFoundError):
                    raise
                raise DamagedFile(f"{damage}, and its copy {part.copy.name} is missing") from None
            except DamagedFile:
                raise DamagedFile(f"{damage}, and so is its copy {part.copy.name}") from None

    def _found(self) -> dict[str, tuple[Part, int]]:
        """The part of each trial, and its row in the part's index."""
        with self._lock:
            if self._places is None:
                places: dict[str, tuple[Part, int]] = {}
                damaged = [self.manifest_damage] if self.manifest_damage else []
                for part in sorted(self.manifest.parts, key=lambda part: part.number):
                    try:
                        names = self.index(part)["trial"].to_pylist()
                    except (DamagedFile, FileNotFoundError) as damage:
                        if isinstance(damage, FileNotFoundError) and not self._is_current():
                            raise  # they have been taken over into another part
                        missing = f"{self.path / part.index.name} is missing, and so is its copy"
                        lost = damage if isinstance(damage, DamagedFile) else missing
                        damaged.append(f"{lost}: {part.index.entries} packed trials are left out")
                        continue
                    unpacked = self.manifest.unpacked
                    places |= {
                        name: (part, row)
                        for row, name in enumerate(names)
                        if is_trial_name(name) and unpacked.get(name, 0) < part.number
                    }
                self._places, self.damaged = places, damaged
            return self._places

    def _is_current(self) -> bool:
        """Whether there is no other manifest by now."""
        try:
            where = self.path / MANIFEST
            return Manifest.read(read_plain(where), where) == self.stored
        except (FileNotFoundError, NotADirectoryError, DamagedFile):
            return True

    def _trial(self, part: Part, row: int) -> PackedTrial:
        (found,) = self.index(part).slice(row, 1).to_pylist()
        rows = {
            one["table"]: (one["name"], RowSpan(one["shape"], one["offset"], one["length"]))
            for one in found["rows"] or ()
        }
        there = found["checkpoint"]
        stored = None if there is None else (there["name"], there["archive"], there["offset"], there["length"])
        if stored is not None and stored[1] not in {archive.name for archive in part.archives}:
            stored = None
        return PackedTrial(self, part, found["trial"], found["config"], found["state"], found["stamp"], rows, stored)


def read_verified(packed: Place, file: PartFile) -> bytes:
    """Return a packed file's content.

    Raises:
        DamagedFile: it is another.
        FileNotFoundError: there is none.
        OSError: the storage errs (:mod:`trials.storage.outages`), which says nothing of the file.
    """
    try:
        content = read_plain(packed / file.name, min(file.size, ROW_BYTES))
    except FileNotFoundError:
        raise
    except OSError as error:
        if errs(error):
            raise
        raise DamagedFile(f"{packed / file.name} cannot be read ({_line(error)})") from None
    if sha256_of(content) != file.sha256:
        raise DamagedFile(f"{packed / file.name} is damaged: its content does not match its hash in {MANIFEST}")
    return content


def _decoded(packed: Place, file: PartFile) -> Any:
    content = read_verified(packed, file)
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        return table if file.name.startswith("rows-") else require_index(table)
    except _DECODED as error:
        raise DamagedFile(f"{packed / file.name} is damaged ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
