"""Which packed files of a sweep count: ``packed/manifest.json`` names them with their sizes and hashes.

Finished trials are packed in parts of up to a thousand. The files of a part are written first, then the manifest is
replaced as a whole, and only then are the trials' own files deleted. So a file that the manifest does not name is what
a kill has left, and a trial is never in neither place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.place import Place
from trials.storage.sealed import seal, unseal

PACKED = "packed"
"""Name of the folder, in a sweep's folder, that holds what is packed."""

PART_TRIALS = 1000
"""Most trials of a part: its index is then read in some milliseconds."""

FILE_NAME = re.compile(
    r"(trials|copy|checkpoints|rows-(?P<table>[a-z]+))-(?P<number>\d{6,})-[0-9a-f]{12}\.(parquet|zip)"
)
"""Names of the files in ``packed/`` beside the manifest."""

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")

_SCHEMA = 1


@dataclass(frozen=True)
class PartFile:
    """A file of a part.

    Attributes:
        name: in ``packed/``.
        size: in bytes.
        sha256: of its content, as hexadecimal digits.
        entries: how many trials it holds something of.
    """

    name: str
    size: int
    sha256: str
    entries: int = 0

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> PartFile:
        """Rebuild from JSON. Raises ValueError, TypeError or KeyError if it is none, or its name leads elsewhere."""
        name = document["name"]
        if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a packed file")
        return cls(name, int(document["size"]), str(document["sha256"]), int(document["entries"]))


@dataclass(frozen=True)
class Part:
    """Trials that were packed together.

    Attributes:
        number: from 1; of a trial in several parts, the part with the highest number counts.
        index: what its trials are and where their rows and checkpoints lie; ``copy`` has the same content.
        rows: by table.
        archives: zip files of checkpoints, not compressed.
        replaces: numbers of the parts whose trials it has taken over.
    """

    number: int
    index: PartFile
    copy: PartFile
    rows: dict[str, PartFile] = field(default_factory=dict)
    archives: tuple[PartFile, ...] = ()
    replaces: tuple[int, ...] = ()

    @property
    def files(self) -> tuple[PartFile, ...]:
        """All its files."""
        return (self.index, self.copy, *self.rows.values(), *self.archives)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Part:
        """Rebuild from JSON. Raises ValueError, TypeError, KeyError or AttributeError if it is none."""
        index, copy = PartFile.of(document["index"]), PartFile.of(document["copy"])
        rows = {str(table): PartFile.of(one) for table, one in document["rows"].items()}
        archives = tuple(PartFile.of(one) for one in document["archives"])
        return cls(int(document["number"]), index, copy, rows, archives, tuple(map(int, document["replaces"])))


@dataclass(frozen=True)
class Manifest:
    """The parts that count, and the trials that have been unpacked since.

    Attributes:
        unpacked: by trial, the number of the last part when it was unpacked; only later parts count for it.
    """

    parts: tuple[Part, ...] = ()
    unpacked: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The highest number that a part has, or had when a trial was unpacked; 0 without any."""
        return max((*(part.number for part in self.parts), *self.unpacked.values()), default=0)

    @property
    def names(self) -> frozenset[str]:
        """The names of all files that count."""
        return frozenset(file.name for part in self.parts for file in part.files)

    def text(self) -> bytes:
        """The manifest as JSON with a checksum of its content."""
        return seal({"schema": _SCHEMA, "parts": [asdict(part) for part in self.parts], "unpacked": self.unpacked})

    @classmethod
    def read(cls, text: bytes, where: Place) -> Manifest:
        """Read what :meth:`text` wrote; ``where`` is for messages.

        Raises:
            DamagedFile: it was changed, or is of another version.
        """
        content, _ = unseal(text, where, ())
        try:
            if content["schema"] != _SCHEMA:
                raise ValueError(f"it has schema {content['schema']!r}, and this version reads {_SCHEMA}")
            unpacked = {name: int(number) for name, number in content["unpacked"].items() if _ID.fullmatch(name)}
            return cls(tuple(map(Part.of, content["parts"])), unpacked)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise DamagedFile(f"{where} is damaged ({error})") from None

    def write(self, packed: Place) -> None:
        """Replace the manifest in the folder ``packed`` as a whole."""
        files.make_folder(packed)
        files.write(packed / MANIFEST, self.text())


MANIFEST = "manifest.json"

PART = b"part"
"""Metadata of an index: its part without the index itself, as JSON, from which a lost manifest is made anew."""


def described(others: Mapping[str, Any]) -> str:
    """What an index says of its part: number, rows, archives and replaces, as JSON."""
    return json.dumps(others, default=asdict)


def is_trial_name(name: object) -> bool:
    """Whether a text can be a trial's name, and so leads nowhere else as a folder's."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def sha256_of(content: bytes) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()
