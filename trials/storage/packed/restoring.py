"""Make a lost, damaged or old manifest anew from the indexes of the parts, which say what their parts consist of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.outages import errs
from trials.storage.packed.manifest import FILE_NAME, PART, Manifest, Part, PartFile, sha256_of
from trials.storage.place import Place
from trials.storage.safe_read import ROW_BYTES, read_plain

_UNREADABLE = (
    *(pa.ArrowException, OSError, DamagedFile),
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
)
"""What a file raises that is no index."""


def rebuilt(packed: Place) -> Manifest:
    """Return the manifest of the parts whose indexes, or copies, lie in the folder ``packed`` and can be read.

    A part that a kill has kept from being named counts, too: it is complete, since its index is written last, and says
    what its trials' own folders say. Which trials were unpacked is not known: their own folders come first.

    Raises:
        OSError: the storage errs (:mod:`trials.storage.outages`): a part must not be lost by that.
    """
    found: dict[int, dict[str, tuple[PartFile, Part]]] = {}
    for name in files.names(packed):
        match = FILE_NAME.fullmatch(name)
        if match is None or match[1] not in ("trials", "copy"):
            continue
        for file, part in _read(packed, name):
            found.setdefault(part.number, {})[match[1]] = (file, part)
    parts = {number: _whole(of_kind) for number, of_kind in found.items()}
    gone = {number for part in parts.values() for number in part.replaces}
    return Manifest(tuple(part for number, part in sorted(parts.items()) if number not in gone))


def with_later(packed: Place, manifest: Manifest) -> Manifest:
    """Return a manifest with the whole parts that lie beside it and have higher numbers than its own.

    An older manifest was put back, or a kill has kept it from being replaced. The copy of an index is written last.
    """
    matches = (FILE_NAME.fullmatch(name) for name in files.names(packed))
    whole = {number for m in matches if m and m[1] == "copy" and (number := int(m["number"])) > manifest.last}
    if not whole:
        return manifest
    later = [part for part in rebuilt(packed).parts if part.number in whole]
    gone = {number for part in later for number in part.replaces}
    return replace(manifest, parts=(*(part for part in manifest.parts if part.number not in gone), *later))


def _read(packed: Place, name: str) -> Iterator[tuple[PartFile, Part]]:
    """The file and what it says of its part; nothing if it cannot be read."""
    try:
        content = read_plain(packed / name, ROW_BYTES)
        index = pq.ParquetFile(pa.BufferReader(content))
        file = PartFile(name, len(content), sha256_of(content), index.metadata.num_rows)
        said = json.loads((index.schema_arrow.metadata or {})[PART])
        index.read(["trial"], use_threads=False)
        yield file, Part.of({**said, "index": vars(file), "copy": vars(file)})
    except _UNREADABLE as error:
        if errs(error):
            raise


def _whole(of_kind: dict[str, tuple[PartFile, Part]]) -> Part:
    """A part with its index and its copy; the one that is there stands for a lost one under that one's name."""
    (file, part) = of_kind.get("trials") or of_kind["copy"]
    token = file.name.partition("-")[2]
    names = {kind: f"{kind}-{token}" for kind in ("trials", "copy")}
    index, copy = (PartFile(names[kind], file.size, file.sha256, file.entries) for kind in ("trials", "copy"))
    return Part(part.number, index, copy, part.rows, part.archives, part.replaces)
