"""Pack the finished trials of a sweep into few files, and unpack those that must be repaired.

Only the holder of the sweep's lease packs. Readers without it may look at any moment: new files are written first, then
the manifest names them, and only then are the old ones removed. What a kill leaves is removed by the next packing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.own_files import (
    finished_trial,
    packed_again,
    remove_own_files,
    require_config,
    verified_checkpoint,
)
from sweeper.packing.right_to_pack import require_right, write_manifest
from sweeper.packing.unnamed_files import put_away_unnamed, remove_unnamed
from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.packed.manifest import PACKED, PART_TRIALS, Manifest, Part, PartFile
from trials.storage.packed.packs import PackedTrial, Packs
from trials.storage.packed.reading import packs_of
from trials.storage.packed.writing import ARCHIVE_BYTES, ARCHIVE_CHECKPOINTS, ToPack, write_part
from trials.storage.row_schema import table_as_rows
from trials.storage.safe_read import read_plain
from trials.storage.trial_folder import State, TrialFolder

PART_BYTES = 256 << 20
"""Bytes of rows in memory from which a part takes no more trials."""

Keeps = Callable[[str], bool]


@dataclass(frozen=True)
class Packing:
    """What a packing has done.

    Attributes:
        trials: how many were packed.
        left: how many finished trials were not, since they are damaged: a run repairs them.
        packed: how many of the sweep's trials are packed now.
        files: how many files hold them, the manifest included.
    """

    trials: int
    left: int
    packed: int = 0
    files: int = 0

    def __str__(self) -> str:
        left = f"; {self.left} are damaged and were left: run the sweep, which repairs them" if self.left else ""
        return f"packed {self.trials} finished trials; {self.packed} are in {self.files} files now{left}"


def pack_finished(folder: SweepFolder, keeps: Keeps = lambda trial: True, without: Iterable[str] = ()) -> Packing:
    """Pack all finished trials that are not packed yet. For the holder of the sweep's lease.

    Args:
        keeps: whether the checkpoint of a trial is kept.
        without: trials to leave alone, since a process may still work on them.

    Raises:
        OSError: the storage does not take it; nothing is lost.
    """
    tidy(folder)
    if packs_of(folder.path, thorough=True) is None:
        write_manifest(folder, Manifest(), None)  # from now on, a missing manifest is a loss
    alone, left, packed = frozenset(without), 0, 0
    stamps = {name: stamp for name, stamp in folder.stamps().items() if name not in alone}
    known = packs_of(folder.path)
    there = [name for name in files.names(folder.trials) if name in stamps]
    new: list[ToPack] = []
    size = 0
    for name in there:
        if known is not None and name in known:
            found = _changed(folder, known, name, stamps[name])
        else:
            found = finished_trial(folder, name, stamps[name], keep_checkpoint=keeps(name))
            left += found is None and _is_finished(folder, name)
        if found is None:
            continue
        new.append(found)
        size += sum(table.nbytes for _, table in found.tables.values())
        if len(new) >= PART_TRIALS or size >= PART_BYTES:
            packed += _add(folder, new)
            new, size = [], 0
    packed += _add(folder, new) if new else 0
    now = packs_of(folder.path)
    assert now is not None
    return Packing(packed, left, len(now.names()), 1 + len(now.manifest.names))


def _is_finished(folder: SweepFolder, name: str) -> bool:
    with suppress(DamagedFile):
        state = TrialFolder(folder.trial_folder(name)).state()
        return state is not None and state.finished
    return False


def _changed(folder: SweepFolder, known: Packs, name: str, stamp: list[int]) -> ToPack | None:
    """A packed trial whose folder has a config again: the driver has added a sample to it."""
    trial = known.find(name)
    try:
        config = read_plain(folder.trial_folder(name) / "config.json")
        require_config(config, folder.trial_folder(name))  # else a run sets it aside, and the packed one counts
        return None if trial is None else packed_again(trial, config, stamp, as_stored=False)
    except (FileNotFoundError, NotADirectoryError, DamagedFile):
        return None


def _add(folder: SweepFolder, new: Sequence[ToPack]) -> int:
    """Write a part of these trials, with those of the last part if it is not full; then remove their own files."""
    known = packs_of(folder.path)
    before = known.manifest if known is not None else Manifest()
    stored = known.stored if known is not None else None
    taken, archives, replaced = _last_part(known, {trial.id for trial in new}, PART_TRIALS - len(new))
    part = write_part(
        folder.path / PACKED,
        before.last + 1,
        [*taken, *new],
        archives,
        [number for part in replaced for number in (*part.replaces, part.number)],
    )
    parts = tuple(one for one in before.parts if one not in replaced)
    now = Manifest((*parts, part), before.unpacked)
    write_manifest(folder, now, stored)
    require_right(folder, now)
    for trial in new:
        remove_own_files(folder.trial_folder(trial.id))
    remove_unnamed(folder, now)
    return len(new)


def _last_part(known: Packs | None, without: set[str], room: int) -> tuple[list[ToPack], list[PartFile], list[Part]]:
    """The trials of the last part, if it is whole and they have room beside others, with its archives that go on."""
    if known is None or not known.manifest.parts:
        return [], [], []
    last = max(known.manifest.parts, key=lambda part: part.number)
    names = [name for name in known.names_of(last) if name not in without]
    if len(names) > room or any(line for line in known.damaged):
        return [], [], []
    trials = list(known.each(names))
    full = {one.name for one in last.archives if one.entries >= ARCHIVE_CHECKPOINTS or one.size >= ARCHIVE_BYTES // 2}
    try:
        again = [
            packed_again(trial, None, trial.stamp, as_stored=trial.stored is not None and trial.stored[1] in full)
            for trial in trials
        ]
    except (DamagedFile, FileNotFoundError):
        return [], [], []
    return again, [one for one in last.archives if one.name in full], [last]


def drop_packed_checkpoints(folder: SweepFolder, keeps: Keeps) -> None:
    """Drop the checkpoints of packed trials that are not kept (any more). For the holder of the sweep's lease.

    Parts whose files are damaged stay as they are.

    Raises:
        OSError: the storage does not take it; nothing else is lost.
    """
    known = packs_of(folder.path)
    for part in known.manifest.parts if known is not None else ():
        if not part.archives:
            continue
        assert known is not None
        trials = list(known.each(known.names_of(part)))
        gone = {trial.id: trial.stored[1] for trial in trials if trial.stored is not None and not keeps(trial.id)}
        if not gone:
            continue
        whole = [one for one in part.archives if one.name not in gone.values()]
        names = {one.name for one in whole}
        with suppress(DamagedFile, FileNotFoundError):
            again = [
                packed_again(
                    trial,
                    None,
                    trial.stamp,
                    as_stored=trial.stored is not None and trial.stored[1] in names,
                    keep_checkpoint=trial.id not in gone,
                )
                for trial in trials
            ]
            now = packs_of(folder.path)
            assert now is not None
            number = now.manifest.last + 1
            instead = write_part(folder.path / PACKED, number, again, whole, [part.number])
            others = tuple(one for one in now.manifest.parts if one != part)
            without = replace(now.manifest, parts=(*others, instead))
            write_manifest(folder, without, now.stored)
            remove_unnamed(folder, without)


def unpack(folder: SweepFolder, names: Iterable[str]) -> None:
    """Give packed trials folders of their own again, without what is damaged. For the holder of the sweep's lease."""
    known = packs_of(folder.path)
    if known is None:
        return
    wanted = list(names)
    for trial in known.each(wanted):
        _unpack(folder, trial)
    _leave_out(folder, known.manifest, known.stored, wanted)


def _unpack(folder: SweepFolder, trial: PackedTrial) -> None:
    """Write a packed trial's files: its config last, and nothing that is damaged."""
    own = TrialFolder(folder.trial_folder(trial.id))
    files.make_folder(own.path)
    state = own.state()
    commits = []
    for commit in state.commits if state is not None else ():
        rows = dict(commit.rows)
        for table, name in commit.rows.items():
            with suppress(DamagedFile, FileNotFoundError):
                if (found := trial.table(table, name)) is not None:
                    rows[table] = own.write_rows(table, table_as_rows(found), commit.number, _attempt(state))
        if commit.checkpoint is not None:
            with suppress(DamagedFile, FileNotFoundError):
                own.write_file("checkpoint", commit.checkpoint, verified_checkpoint(trial, commit.checkpoint))
        commits.append(replace(commit, rows=rows))
    if state is not None:
        own.write_state(replace(state, commits=tuple(commits)))
    _write_config(own, trial)


def _write_config(own: TrialFolder, trial: PackedTrial) -> None:
    if not (own.path / "config.json").exists():
        files.write(own.path / "config.json", trial.config)


def _attempt(state: State | None) -> int:
    return 0 if state is None else state.attempt


def tidy(folder: SweepFolder) -> list[str]:
    """Finish or drop what a killed packing has left. For the holder of the sweep's lease.

    Returns a line for each damaged file of a packed trial's own folder, which is set aside: what is packed counts.
    """
    known = packs_of(folder.path, thorough=True)
    if known is None:
        return []
    lines: list[str] = []
    if known.manifest != known.stored:
        write_manifest(folder, known.manifest, known.stored)
        lines += put_away_unnamed(folder, known.manifest) if known.manifest_damage else ()
    require_right(folder, known.manifest)
    newer = []
    for name in files.names(folder.trials):
        trial = known.find(name)
        if trial is None:
            continue
        own = TrialFolder(folder.trial_folder(name))
        lines += own.put_away_strangers()
        if _has_other_state(own, trial, lines):
            newer.append(name)
            _write_config(own, trial)
        else:
            remove_own_files(own.path, keep_config=_config_differs(own, trial))
    now = _leave_out(folder, known.manifest, known.manifest, newer) if newer else known.manifest
    remove_unnamed(folder, now)
    return lines


def _leave_out(folder: SweepFolder, manifest: Manifest, stored: Manifest | None, names: Iterable[str]) -> Manifest:
    """Count the own folders of trials from now on, not what is packed of them; return the manifest that says so.

    ``stored``: what the file says, which may be older than ``manifest``.
    """
    gone = dict.fromkeys(names, manifest.last)
    now = replace(manifest, unpacked={**manifest.unpacked, **gone})
    write_manifest(folder, now, stored)
    return now


def _has_other_state(own: TrialFolder, trial: PackedTrial, lines: list[str]) -> bool:
    """Whether a trial's folder has a state that is later than the packed one: it was unpacked and has gone on since.

    A damaged one is set aside, with a line for it, and so is an older one that was put back.
    """
    try:
        here = own.state_of(read_plain(own.state_path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except DamagedFile as damage:
        lines.append(own.put_away(damage, own.state_path))
        return False
    try:
        packed = own.state_of(trial.state)
    except DamagedFile:
        return True
    if here.standing < packed.standing:
        older = DamagedFile(f"{own.state_path} is older than what is packed of the trial")
        lines.append(own.put_away(older, own.state_path))
        return False
    return _progress(here) != _progress(packed)


def _progress(state: State) -> tuple[object, ...]:
    return state.status, state.attempt, state.failures, [commit.number for commit in state.commits], state.ended


def _config_differs(own: TrialFolder, trial: PackedTrial) -> bool:
    try:
        return read_plain(own.path / "config.json") != trial.config
    except (FileNotFoundError, NotADirectoryError):
        return False
    except DamagedFile:
        return True  # a run sets it aside
