"""Stamps of trials, by which a reader knows which of them have changed, without reading them."""

from __future__ import annotations

import os
from functools import partial

from trials.storage.outages import errs, in_a_run, patiently
from trials.storage.packed.reading import LOOKS_AGAIN, forget_packs, own_names_and_packs, with_packed
from trials.storage.place import ObjectPath, Place

Stamp = list[int]
"""Modification time in ns and size of each file in ``_STAMPED``; 0 for a missing file."""

_STAMPED = ("config.json", "state.json")


def stamps_in(trials: Place) -> dict[str, Stamp]:
    """Return a stamp for each trial in a sweep's folder of trials, or packed, by name.

    Raises:
        FileNotFoundError: what is packed is replaced again and again.
    """
    for _ in range(LOOKS_AGAIN - 1):
        try:
            return _stamps_in(trials)
        except FileNotFoundError:  # an index, taken over into another part meanwhile
            forget_packs(trials.parent)
    return _stamps_in(trials)


def _stamps_in(trials: Place) -> dict[str, Stamp]:
    if isinstance(trials, ObjectPath):
        found = trials.stamps()
        own = {name.partition("/")[0] for name in found}
        stamps = {name: [x for f in _STAMPED for x in found.get(f"{name}/{f}", (0, 0))] for name in own}
        return with_packed(stamps, own_names_and_packs(trials)[1])  # packs are read last: see there
    there, packs = own_names_and_packs(trials)
    return with_packed({name: _stamp(f"{trials}/{name}") for name in there}, packs)


def is_as_stamped(folder: Place, stamp: Stamp) -> bool:
    """Whether a trial's folder still has this stamp. In an object store that costs a request, and is not asked."""
    return isinstance(folder, ObjectPath) or _stamp(str(folder)) == stamp


def _stamp(folder: str) -> Stamp:
    stamp = []
    for name in _STAMPED:
        try:
            # a text: for ten thousand folders, a Path would cost more than the call
            found = patiently(partial(os.stat, f"{folder}/{name}"), folder)
            stamp += [found.st_mtime_ns, found.st_size]
        except OSError as error:
            if errs(error) and in_a_run():
                raise
            stamp += [0, 0]
    return stamp
