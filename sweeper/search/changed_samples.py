"""Commits what a search decides of samples that were scheduled before."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import replace

from sweeper.folder.replicates import same_replicate
from sweeper.folder.sweep_folder import Record, Sample, SweepFolder
from sweeper.search.cells.cell_search import CellSearch


def commit_changed(search: CellSearch, records: MutableMapping[str, Record], folder: SweepFolder) -> None:
    """Write the samples that a search has changed into their trials' configs; ``records``, by id, are updated."""
    for changed in search.changed():
        record = _record_of(changed, search, records)
        samples = tuple(
            replace(other, attrs={**other.attrs, **changed.attrs}) if same_replicate(other, changed) else other
            for other in record.samples
        )
        folder.schedule(record.id, record.content, samples, record.stored.revisions)
        records[record.id] = replace(record, samples=samples)


def _record_of(sample: Sample, search: CellSearch, records: Mapping[str, Record]) -> Record:
    likely = records.get(search.config(sample).id)  # unless another version has named it
    if likely is not None and any(same_replicate(other, sample) for other in likely.samples):
        return likely
    return next(record for record in records.values() if any(same_replicate(other, sample) for other in record.samples))
