"""Check a sweep's packed files before a run, and repair what can be repaired; the rest runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.packing.packing import tidy, unpack
from sweeper.packing.right_to_pack import write_manifest
from sweeper.packing.unnamed_files import put_away_unnamed
from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.packed.manifest import PACKED, Part, PartFile, sha256_of
from trials.storage.packed.packs import PackedTrial, Packs, read_verified
from trials.storage.packed.reading import forget_packs, packs_of
from trials.storage.place import Place
from trials.storage.safe_read import CHECKPOINT_BYTES, read_plain, require_own_folder


def repaired(folder: SweepFolder, *, checkpoints: bool = False) -> list[str]:
    """Repair a sweep's packed files and then its trials' own; finish or drop what a killed packing has left.

    For the holder of the sweep's lease, before it assigns trials. Returns a line for each damaged file.

    Args:
        checkpoints: verify checkpoints too.
    """
    return [*repair_packed(folder, checkpoints=checkpoints), *folder.repair(checkpoints=checkpoints)]


def repair_packed(folder: SweepFolder, *, checkpoints: bool = False) -> list[str]:
    """Check packed files by their hashes, and tidy them; return a line for each that is damaged, and what follows.

    For the holder of the sweep's lease, before it assigns trials and before the trials' own files are repaired. A
    damaged index is written anew from its copy, and the other way round. Trials whose rows are damaged get their own
    folders again, where the rows are written from their checkpoints, or else the trial runs again. Where index and copy
    are damaged, the trials of the part run again.

    Args:
        checkpoints: verify archives too. They are large, and a checkpoint is always verified when it is used.
    """
    lines: list[str] = []
    try:
        require_own_folder(folder.path / PACKED)
    except DamagedFile as damage:
        lines.append(f"{_put_away(folder.path / PACKED, str(damage))}: what was packed runs again")
    known = packs_of(folder.path, thorough=True)
    if known is None:
        return lines
    if known.manifest_damage:
        lines.append(f"{known.manifest_damage}; written anew")
        write_manifest(folder, known.manifest, known.stored)
        lines += put_away_unnamed(folder, known.manifest)
    lost = [part for part in known.manifest.parts if not _index_is_whole(known, part, lines)]
    if lost:
        known = _without_parts(folder, known, lost)
    damaged = [*_damaged_rows(known, lines), *(_damaged_checkpoints(known, lines) if checkpoints else ())]
    if damaged:
        unpack(folder, dict.fromkeys(damaged))
    return [*lines, *tidy(folder)]


def _index_is_whole(known: Packs, part: Part, lines: list[str]) -> bool:
    """Whether a part has an index; a damaged one is written anew from its copy, or the copy from it."""
    contents: dict[str, bytes] = {}
    for file in (part.index, part.copy):
        damage = _damage_of(known.path, file, contents.setdefault)
        if damage is not None:
            lines.append(damage)
    for file, other in ((part.index, part.copy), (part.copy, part.index)):
        if file.name not in contents and other.name in contents:
            files.write(known.path / file.name, contents[other.name])
            lines[-1] += f"; written anew from {other.name}"
    return bool(contents)


def _damage_of(packed: Place, file: PartFile, keep: Callable[[str, bytes], object] = lambda *_: None) -> str | None:
    try:
        keep(file.name, read_verified(packed, file))
    except FileNotFoundError:
        return f"{packed / file.name} is missing"
    except DamagedFile as damage:
        return str(damage)
    return None


def _without_parts(folder: SweepFolder, known: Packs, lost: list[Part]) -> Packs:
    """Take parts without an index out of the manifest and set their files aside: their trials run again."""
    left = tuple(part for part in known.manifest.parts if part not in lost)
    used = {file.name for part in left for file in part.files}
    replace(known.manifest, parts=left).write(folder.path / PACKED)
    forget_packs(folder.path)
    for name in {file.name for part in lost for file in part.files} - used:
        if (known.path / name).exists():
            files.set_aside(known.path / name)
    now = packs_of(folder.path)
    assert now is not None
    return now


def _damaged_rows(known: Packs, lines: list[str]) -> Iterator[str]:
    """The names of trials whose rows lie in a damaged file; the file is set aside."""
    for part in known.manifest.parts:
        for table, file in part.rows.items():
            damage = _damage_of(known.path, file)
            if damage is None:
                continue
            lines.append(_put_away(known.path / file.name, damage))
            yield from (trial.id for trial in _of_part(known, part) if table in trial.rows)


def _damaged_checkpoints(known: Packs, lines: list[str]) -> Iterator[str]:
    """The names of trials whose checkpoints are damaged."""
    for part in known.manifest.parts:
        hurt = {file.name: damage for file in part.archives if (damage := _archive_damage(known.path, file))}
        if not hurt:
            continue
        found = [trial for trial in _of_part(known, part) if trial.stored is not None and trial.stored[1] in hurt]
        damaged = [trial.id for trial in found if not _has_checkpoint(trial)]
        lines += hurt.values()
        yield from damaged


def _archive_damage(packed: Place, file: PartFile) -> str | None:
    try:
        with_hash = sha256_of(read_plain(packed / file.name, CHECKPOINT_BYTES)) == file.sha256
    except FileNotFoundError:
        return f"{packed / file.name} is missing"
    except DamagedFile as damage:
        return str(damage)
    return None if with_hash else f"{packed / file.name} is damaged: its content does not match its hash"


def _has_checkpoint(trial: PackedTrial) -> bool:
    assert trial.stored is not None
    try:
        content = trial.checkpoint(trial.stored[0])
    except (FileNotFoundError, DamagedFile):
        return False
    return content is not None and files.digest(content) in trial.stored[0]


def _of_part(known: Packs, part: Part) -> Iterator[PackedTrial]:
    return known.each(known.names_of(part))


def _put_away(path: Place, damage: str) -> str:
    with suppress(FileNotFoundError):
        return f"{damage}; set aside as {files.set_aside(path).name}"
    return damage
