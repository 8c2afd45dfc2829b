"""Records in little memory: a driver holds one of each trial, and rarely looks at those of trials that are over.

A record takes 12 KiB as Python's objects, and some hundred bytes packed: as JSON, like the files that it was read from,
and compressed with what it has in common with the first one.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from typing import Any

from sweeper.folder.sweep_folder import Record, Sample, StoredConfig, SweepFolder
from trials.storage.place import Place
from trials.storage.trial_folder import Commit, State, TrialFolder

_WINDOW = 1 << 15
"""Bytes that zlib looks back to, of what the records have in common, too."""

_LEVEL = 3


class Packer:
    """Packs the records of one sweep, all but the parsed config, which unpacked ones parse anew on first use.

    Args:
        trials: the folder of the trials.
    """

    def __init__(self, trials: Place) -> None:
        self._trials = trials
        self._common: bytes | None = None
        self._first = threading.Lock()  # records of an object store are read in threads

    def pack(self, record: Record) -> bytes:
        """Return a record as bytes that :meth:`unpack` of this object reads."""
        samples = [list(vars(sample).values()) for sample in record.samples]
        parts = (record.folder.path.name, record.id, record.content, record.stored.revisions, samples, record.state)
        content = json.dumps(parts, default=vars, separators=(",", ":")).encode()
        with self._first:
            if self._common is None:
                self._common = content[-_WINDOW:]
        packing = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS, zdict=self._common)
        return packing.compress(content) + packing.flush()

    def unpack(self, packed: bytes) -> Record:
        """Return the record that was packed, as an object of its own."""
        assert self._common is not None
        content = zlib.decompressobj(-zlib.MAX_WBITS, zdict=self._common).decompress(packed)
        name, trial_id, config, revisions, samples, state = json.loads(content)
        return Record(
            trial_id,
            StoredConfig(config, revisions),
            tuple(Sample(*sample) for sample in samples),
            TrialFolder(self._trials / name),
            None if state is None else _state(state),
        )


def _state(said: dict[str, Any]) -> State:
    commits = tuple(Commit(**commit) for commit in said["commits"])
    return State(**{**said, "commits": commits, "environments": tuple(said["environments"])})


class PackedRecords(MutableMapping[str, Record]):
    """The records of a sweep by trial id. Each look at a packed one makes a new object.

    Args:
        folder: the sweep's; all of its records are read, and packed.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self._packer = Packer(folder.trials)
        found = folder.each_record(lambda record: (record.id, self._packer.pack(record)))
        self._kept: dict[str, Record | bytes] = dict(found)

    def pack(self, trial_id: str) -> None:
        """Keep a trial's record packed from now on, also where it is set again."""
        kept = self._kept[trial_id]
        if isinstance(kept, Record):
            self._kept[trial_id] = self._packer.pack(kept)

    def unpack(self, trial_id: str) -> Record:
        """Keep a trial's record as an object from now on, which looks share, and with it its parsed config."""
        self._kept[trial_id] = record = self[trial_id]
        return record

    def finished(self, trial_id: str) -> Record | None:
        """The record of a finished trial; None of others."""
        record = self.get(trial_id)
        return record if record is not None and record.finished else None

    def __getitem__(self, trial_id: str) -> Record:
        kept = self._kept[trial_id]
        return kept if isinstance(kept, Record) else self._packer.unpack(kept)

    def __setitem__(self, trial_id: str, record: Record) -> None:
        packed = isinstance(self._kept.get(trial_id), bytes)
        self._kept[trial_id] = self._packer.pack(record) if packed else record

    def __delitem__(self, trial_id: str) -> None:
        del self._kept[trial_id]

    def __contains__(self, trial_id: object) -> bool:
        return trial_id in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)


def in_search_order(records: Mapping[str, Record]) -> list[tuple[str, int]]:
    """Every sample, by cell and number, as its trial's id and its place in :attr:`Record.samples`."""
    order = [
        (sample.cell, sample.number, trial_id, place)
        for trial_id, record in records.items()
        for place, sample in enumerate(record.samples)
    ]
    order.sort(key=lambda item: item[:2])
    return [(trial_id, place) for _, _, trial_id, place in order]


class RecordContents(Collection[Mapping[str, Any]]):
    """The contents of the configs that a sweep has asked for, each made when its turn comes."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = records

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (record.content for record in self._records.values() if record.samples)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __contains__(self, content: object) -> bool:
        return any(content == other for other in self)
