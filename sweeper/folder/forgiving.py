"""Failed trials that may run again (``--retry-failed``), and failures that a population has already counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from trials.errors import DamagedFile
from trials.storage.trial_folder import State, TrialFolder


class Scheduled(Protocol):
    """What a record says here: the samples of a trial and how it stands."""

    @property
    def id(self) -> str: ...

    @property
    def samples(self) -> Iterable[Any]: ...

    @property
    def state(self) -> State | None: ...


S = TypeVar("S", bound=Scheduled)


def followed_failures(records: Iterable[Scheduled]) -> frozenset[str]:
    """Ids of failed trials of a population's generation whose next generation has begun.

    Its members were chosen knowing that these trials had failed. If they ran again now, the rest of the generation
    would be chosen from another ranking; so they stay failed, with ``--retry-failed`` and with more ``retries``.
    """
    begun: set[tuple[str, int]] = set()
    failed: dict[str, list[tuple[str, int]]] = {}
    for record in records:
        places = [
            (sample.cell, sample.attrs["pbt"]["generation"]) for sample in record.samples if "pbt" in sample.attrs
        ]
        begun.update(places)
        if places and record.state is not None and record.state.status == "failed":
            failed[record.id] = places
    followed = {name for name, places in failed.items() if any((cell, g + 1) in begun for cell, g in places)}
    return frozenset(followed)


def member(record: S) -> list[S]:
    """The record itself if its trial is a member of a population; empty otherwise: no failure of it is followed."""
    return [record] if any("pbt" in sample.attrs for sample in record.samples) else []


def forgive_trial(folder: TrialFolder) -> bool:
    """Reset a trial if it has failed; returns whether it had."""
    try:
        state = folder.state()
    except DamagedFile:
        return False
    if state is None or state.status != "failed":
        return False
    folder.write_state(replace(state, status="preempted", failures=0, error=None))
    return True
