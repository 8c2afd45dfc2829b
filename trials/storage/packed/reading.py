"""Read a trial that may be packed, given the folder that it has, or would have: ``<sweep>/trials/<id>``.

Whatever lies in a trial's own folder counts first. What is missing there is looked for in the sweep's packed files. A
process keeps what it knows of them, and looks again when something is not there: packed trials do not change.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.outages import errs, patiently
from trials.storage.packed.manifest import FILE_NAME, MANIFEST, PACKED, Manifest
from trials.storage.packed.packs import PackedTrial, Packs
from trials.storage.packed.restoring import rebuilt, with_later
from trials.storage.place import Place
from trials.storage.safe_read import read_plain, require_own_folder
from trials.storage.sweep_path import TRIALS

LOOKS_AGAIN = 5
"""How often something packed is looked for while other processes replace packed files."""

SWEEPS_KEPT = 4

_T = TypeVar("_T")
_known: OrderedDict[str, tuple[Any, Packs]] = OrderedDict()
_lock = threading.Lock()


def packs_of(sweep: Place, *, thorough: bool | None = None) -> Packs | None:
    """What is packed of the sweep in a folder, as of now; None if nothing is.

    A damaged manifest is made anew, in memory, from the files that it named.

    Args:
        thorough: whether to do so for a missing one, too, and to look for parts that are later than the manifest; by
            default on a path, where looking costs nothing.
    """
    manifest, stamp = sweep / PACKED / MANIFEST, None
    try:
        require_own_folder(sweep / PACKED)
    except DamagedFile as damage:
        forget_packs(sweep)
        return Packs(sweep / PACKED, Manifest(), str(damage))
    try:
        stamp = _stamp(manifest)
        with _lock:
            known = _known.get(str(sweep))
            if known is not None and known[0] == stamp:
                _known.move_to_end(str(sweep))
                return known[1]
        content = stamp if isinstance(stamp, bytes) else read_plain(manifest)
        stored = Manifest.read(content, manifest)
        looks = isinstance(sweep, Path) if thorough is None else thorough
        packs = Packs(sweep / PACKED, with_later(sweep / PACKED, stored) if looks else stored, stored=stored)
    except (FileNotFoundError, NotADirectoryError):
        return _without_manifest(sweep, isinstance(sweep, Path) if thorough is None else thorough)
    except DamagedFile as damage:
        packs = Packs(sweep / PACKED, rebuilt(sweep / PACKED), f"{damage}: the files beside it say what is packed")
    _keep(sweep, stamp, packs)
    return packs


def _without_manifest(sweep: Place, thorough: bool) -> Packs | None:
    if not thorough or not any(map(FILE_NAME.fullmatch, files.names(sweep / PACKED))):  # a manifest precedes them
        forget_packs(sweep)
        return None
    with _lock:
        known = _known.get(str(sweep))
    found, where = rebuilt(sweep / PACKED), sweep / PACKED / MANIFEST
    if not found.parts:
        forget_packs(sweep)
        return Packs(sweep / PACKED, found, f"{where} is missing, and no index beside it can be read")
    if known is not None and known[1].manifest == found:
        return known[1]
    packs = Packs(sweep / PACKED, found, f"{where} is missing: the files beside it say what is packed")
    _keep(sweep, None, packs)
    return packs


def _keep(sweep: Place, stamp: Any, packs: Packs) -> None:
    with _lock:
        _known[str(sweep)] = stamp, packs
        while len(_known) > SWEEPS_KEPT:
            _known.popitem(last=False)


def _stamp(manifest: Place) -> Any:
    """What changes with the manifest. An object store's stamps are coarse, so its content is."""
    if isinstance(manifest, Path):
        found = patiently(lambda: Path(manifest).lstat(), manifest.parent)
        return found.st_ino, found.st_mtime_ns, found.st_size
    return read_plain(manifest)


def forget_packs(sweep: Place) -> None:
    """Look at the manifest of a sweep anew: a file that it named is gone, or this process has written another."""
    with _lock:
        _known.pop(str(sweep), None)


def of_packed(folder: Place, read: Callable[[PackedTrial], _T]) -> _T | None:
    """What ``read`` makes of the packed trial whose own folder is, or was, ``folder``; None if it is not packed.

    Raises:
        DamagedFile: the manifest, or what ``read`` reads, is damaged.
    """
    if folder.parent.name != TRIALS:
        return None
    sweep = folder.parent.parent
    gone: FileNotFoundError | None = None
    for _ in range(LOOKS_AGAIN):
        try:
            trial = _find(sweep, folder.name)
            return None if trial is None else read(trial)
        except FileNotFoundError as error:  # merged with others into a new file, unless it was deleted by hand
            gone = error
            forget_packs(sweep)
    raise DamagedFile(f"{gone.filename if gone and gone.filename else sweep / PACKED} is missing") from None


def _find(sweep: Place, name: str) -> PackedTrial | None:
    with _lock:
        known = _known.get(str(sweep))
    found = None if known is None else known[1].find(name)
    if found is not None:
        return found
    now = packs_of(sweep)
    return None if now is None or (known is not None and now is known[1]) else now.find(name)


def packed_config(folder: Place) -> bytes | None:
    """Return the ``config.json`` of a packed trial; None if it is not packed. Raises DamagedFile."""
    return of_packed(folder, lambda trial: trial.config)


def packed_state(folder: Place) -> bytes | None:
    """Return the ``state.json`` of a packed trial; None if it is not packed. Raises DamagedFile."""
    return of_packed(folder, lambda trial: trial.state)


def packed_table(folder: Place, table: str, name: str) -> Any:
    """Return a packed trial's rows that were in the row file ``name``; None if there are none. Raises DamagedFile."""
    return of_packed(folder, lambda trial: trial.table(table, name))


def packed_checkpoint(folder: Place, name: str) -> bytes | None:
    """Return a packed trial's checkpoint of that name, not verified; None if there is none. Raises DamagedFile."""
    return of_packed(folder, lambda trial: trial.checkpoint(name))


def is_trial(folder: Place) -> bool:
    """Whether a trial lies in a folder, or is packed under its name."""
    if (folder / "state.json").is_file() or (folder / "config.json").is_file():
        return True
    try:
        return of_packed(folder, lambda trial: True) is True
    except (DamagedFile, OSError) as error:
        if errs(error):
            raise
        return False


def trial_names(trials: Place) -> list[str]:
    """Names of a sweep's trials, sorted: those with a folder in ``trials`` and those that are packed.

    What is damaged counts as not there: who reads trials says so (:func:`packed_damage`).
    """
    there, packs = own_names_and_packs(trials)
    return there if packs is None else sorted(frozenset(there).union(packs.names()))


def own_names_and_packs(trials: Place) -> tuple[list[str], Packs | None]:
    """The names of the trials that have a folder in ``trials``, and what is packed at that time."""
    before = _packs_in(trials)
    for _ in range(LOOKS_AGAIN):
        there = files.names(trials)
        now = _packs_in(trials)  # after the listing: a trial whose folder has gone by then is packed
        if now is before:  # nor was one unpacked meanwhile
            break
        before = now
    return there, now


def with_packed(stamps: dict[str, list[int]], packs: Packs | None) -> dict[str, list[int]]:
    """Stamps of trials' own files, two numbers for each file and 0 for one that is missing, by name; with those that
    missing files of packed trials had."""
    found = dict(stamps)
    for trial, stamp in packs.stamps() if packs is not None else ():
        own = found.get(trial, [])
        found[trial] = [mine or then for mine, then in zip(own, stamp, strict=True)] if any(own) else stamp
    return dict(sorted(found.items()))


def _packs_in(trials: Place) -> Packs | None:
    """What is packed of the sweep, with its index read; None if nothing is."""
    if trials.name != TRIALS:
        return None
    for _ in range(LOOKS_AGAIN):
        try:
            found = packs_of(trials.parent, thorough=True)
            _ = found and found.names()
        except FileNotFoundError:
            forget_packs(trials.parent)
        except DamagedFile:
            return None
        else:
            return found
    return None


def packed_damage(sweep: Place) -> list[str]:
    """A line for each packed file of a sweep whose trials cannot be read at all."""
    try:
        found = packs_of(sweep, thorough=True)
        _ = found and found.names()
    except (DamagedFile, FileNotFoundError) as damage:
        return [f"{damage}: packed trials are left out"]
    return [] if found is None else list(found.damaged)


def part_by_part(trials: Place, names: list[str]) -> list[str]:
    """The names in an order that reads every packed file once."""
    found = _packs_in(trials)
    return names if found is None else sorted(names, key=found.part_of)
