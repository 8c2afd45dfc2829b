"""Write the files of a part: archives of checkpoints, a file of rows for each table, and the index, which is last."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from trials.storage import files
from trials.storage.leases.owner import new_token
from trials.storage.packed.index import INDEX
from trials.storage.packed.manifest import PART, Part, PartFile, described, sha256_of
from trials.storage.packed.stacked_rows import stack_rows
from trials.storage.place import Place

ARCHIVE_CHECKPOINTS, ARCHIVE_BYTES = 100, 4 << 30
"""Most checkpoints of an archive, and the size from which it takes no more."""

_NO_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class ToPack:
    """A finished trial that is to be packed.

    Attributes:
        config, state: contents of its ``config.json`` and ``state.json``.
        stamp: modification times in ns and sizes of both.
        tables: by table, the name of its row file and its rows as an Arrow table.
        checkpoint: the name of its checkpoint, and a function that reads it; None without one.
        stored: where its checkpoint lies in an archive that goes on as it is: name, archive, offset, length.
    """

    id: str
    config: bytes
    state: bytes
    stamp: list[int]
    tables: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    checkpoint: tuple[str, Callable[[], bytes]] | None = None
    stored: tuple[str, str, int, int] | None = None


def write_part(
    packed: Place,
    number: int,
    trials: Sequence[ToPack],
    archives: Sequence[PartFile] = (),
    replaces: Sequence[int] = (),
) -> Part:
    """Write the files of a part into the folder ``packed`` and return the part; it counts once a manifest names it.

    Args:
        archives: archives of the parts that it replaces which go on as they are.
    """
    files.make_folder(packed)
    token = uuid.uuid4().hex[:12]
    stored = {trial.id: trial.stored for trial in trials if trial.stored is not None}
    made: list[PartFile] = []
    waiting = [trial for trial in trials if trial.checkpoint is not None]
    while waiting:
        archive, places = _write_archive(packed, number, waiting)
        made.append(archive)
        stored |= places
    rows: dict[str, PartFile] = {}
    spans: dict[str, list[dict[str, Any]]] = {trial.id: [] for trial in trials}
    for table in dict.fromkeys(table for trial in trials for table in trial.tables):
        found = {trial.id: trial.tables[table] for trial in trials if table in trial.tables}
        stacked, where = stack_rows({name: content for name, (_, content) in found.items()})
        rows[table] = _write_parquet(packed, f"rows-{table}-{number:06d}-{token}.parquet", stacked, len(found))
        for name, span in where.items():
            spans[name].append({"table": table, "name": found[name][0], **asdict(span)})
    index = _index(trials, spans, stored)
    others = {"number": number, "rows": rows, "archives": (*archives, *made), "replaces": tuple(replaces)}
    index = index.replace_schema_metadata({PART: described(others)})
    first, copy = (
        _write_parquet(packed, f"{kind}-{number:06d}-{token}.parquet", index, len(trials))
        for kind in ("trials", "copy")
    )
    return Part(number, first, copy, rows, (*archives, *made), tuple(replaces))


def _index(
    trials: Sequence[ToPack],
    spans: Mapping[str, list[dict[str, Any]]],
    stored: Mapping[str, tuple[str, str, int, int]],
) -> Any:
    return pa.table(
        {
            "trial": [trial.id for trial in trials],
            "config": [trial.config for trial in trials],
            "state": [trial.state for trial in trials],
            "stamp": [trial.stamp for trial in trials],
            "rows": [spans[trial.id] for trial in trials],
            "checkpoint": [_place(stored.get(trial.id)) for trial in trials],
        },
        schema=INDEX,
    )


def _place(stored: tuple[str, str, int, int] | None) -> dict[str, Any] | None:
    return None if stored is None else dict(zip(("name", "archive", "offset", "length"), stored, strict=True))


def _write_parquet(packed: Place, name: str, table: Any, entries: int) -> PartFile:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    content = buffer.getvalue()
    files.write(packed / name, content)
    return PartFile(name, len(content), sha256_of(content), entries)


def _write_archive(
    packed: Place, number: int, waiting: list[ToPack]
) -> tuple[PartFile, dict[str, tuple[str, str, int, int]]]:
    """Write an archive of the first trials that wait, and take them off; return it and where each checkpoint lies."""
    name = f"checkpoints-{number:06d}-{uuid.uuid4().hex[:12]}.zip"
    places: dict[str, tuple[str, str, int, int]] = {}
    with _stream(packed / name) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        while waiting and len(places) < ARCHIVE_CHECKPOINTS and out.size < ARCHIVE_BYTES:
            trial = waiting.pop(0)
            assert trial.checkpoint is not None
            assert archive.fp is not None
            file, content = trial.checkpoint[0], trial.checkpoint[1]()
            entry = zipfile.ZipInfo(f"{trial.id}/{file}", _NO_DATE)
            entry.file_size = len(content)
            with archive.open(entry, "w") as one:
                places[trial.id] = (file, name, archive.fp.tell(), len(content))
                one.write(content)
    return PartFile(name, out.size, out.hashed.hexdigest(), len(places)), places


class _Counted:
    """A stream that counts and hashes what passes through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.size = 0
        self.hashed = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._stream.write(content)
        self.size += len(content)
        self.hashed.update(content)
        return len(content)

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def _stream(path: Place) -> Iterator[_Counted]:
    """A stream into a new file that appears as a whole (an object appears when all is written, also after an error)."""
    if not isinstance(path, Path):
        with path.stream() as stream:
            yield _Counted(stream)
        return
    temporary = files.temporary_of(path, new_token())
    try:
        with temporary.open("wb") as file:
            yield _Counted(file)
            files.share(file.fileno(), path.parent)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # the disk may be full: free the space of the partial file
        raise
