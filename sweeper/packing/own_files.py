"""The own files of a finished trial: read whole and checked before they are packed, removed once they are."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sweeper.folder.stamps import Stamp, is_as_stamped
from sweeper.folder.sweep_folder import SweepFolder, read_samples
from trials.errors import DamagedFile
from trials.storage import files
from trials.storage.config_file import config_in, read_config
from trials.storage.packed.packs import PackedTrial
from trials.storage.packed.writing import ToPack
from trials.storage.place import ObjectPath, Place
from trials.storage.safe_read import read_plain
from trials.storage.trial_folder import State, TrialFolder

COMMITTED = re.compile(r"([A-Za-z0-9_]+-)?\d{6,}-a\d+-[0-9a-f]{12}\.(pt|parquet)")
"""Names of files of commits. Others in a trial's folder are somebody's, and stay."""

_KINDS = ("checkpoint", "rows")


def finished_trial(folder: SweepFolder, name: str, stamp: Stamp, *, keep_checkpoint: bool) -> ToPack | None:
    """A trial's own files, to be packed; None if it is not finished, or not whole: then a run repairs it first.

    Args:
        stamp: of its config and its state, taken before; nothing is packed under the stamp of older ones.
        keep_checkpoint: whether its checkpoint is packed, too; otherwise its state names none.

    Raises:
        OSError: the storage does not give a file.
    """
    trial = TrialFolder(folder.trial_folder(name))
    try:
        config, state_text = (read_plain(trial.path / file) for file in ("config.json", "state.json"))
        require_config(config, trial.path)
        state = trial.state_of(state_text)
        if [len(config), len(state_text)] != stamp[1::2] or not is_as_stamped(trial.path, stamp):
            return None
        if state is None or not state.finished or len(state.commits) > 1:
            return None
        tables: dict[str, tuple[str, Any]] = {}
        checkpoint = None
        for commit in state.commits:  # one, unless nothing is committed
            tables = {table: (name, trial.table(commit, table)) for table, name in commit.rows.items()}
            checkpoint = commit.checkpoint
        if checkpoint is not None and not (keep_checkpoint and (trial.path / "checkpoint" / checkpoint).exists()):
            state_text = trial.state_text(without_checkpoints(state))
            checkpoint = None
        elif checkpoint is not None:
            trial.read("checkpoint", checkpoint)  # raises if it is damaged
    except (FileNotFoundError, NotADirectoryError, DamagedFile):
        return None
    read = None if checkpoint is None else (checkpoint, partial(trial.read, "checkpoint", checkpoint))
    return ToPack(name, config, state_text, list(stamp), tables, read)


def require_config(config: bytes, folder: Place) -> None:
    """Check that the content of a ``config.json`` is whole. Raises DamagedFile."""
    read_samples(config_in(config, folder).samples, folder)


def without_checkpoints(state: State) -> State:
    """A state whose commits name no checkpoint."""
    return replace(state, commits=tuple(replace(commit, checkpoint=None) for commit in state.commits))


def drop_checkpoint(folder: SweepFolder, name: str) -> None:
    """Let the state of a finished trial name no checkpoint, then delete it. What is not the sweep's trial stays."""
    trial = TrialFolder(folder.trial_folder(name))
    try:
        read_config(trial.path)  # a copy under another name is somebody's
        state = trial.state()
    except (FileNotFoundError, NotADirectoryError, DamagedFile):
        return
    if state is None or not state.finished or not trial.state_path.exists():
        return
    if any(commit.checkpoint is not None for commit in state.commits):
        trial.write_state(without_checkpoints(state))
    folder.drop_checkpoints(name)


def packed_again(
    trial: PackedTrial, config: bytes | None, stamp: Stamp, *, as_stored: bool, keep_checkpoint: bool = True
) -> ToPack:
    """A packed trial, to be packed anew: with others of its part, without its checkpoint, or with another config.

    Args:
        config: its ``config.json``, if its folder has one.
        as_stored: whether its checkpoint stays in its archive.

    Raises:
        DamagedFile: its rows, its state or its checkpoint are damaged.
        FileNotFoundError: its archive is gone.
    """
    tables = {table: (name, trial.table(table, name)) for table, (name, _) in trial.rows.items()}
    checkpoint, state = None, trial.state
    if not keep_checkpoint:
        own = TrialFolder(trial.packs.path.parent / "trials" / trial.id)
        state = own.state_text(without_checkpoints(own.state_of(state)))
    elif trial.stored is not None and not as_stored:
        name = trial.stored[0]
        verified_checkpoint(trial, name)  # read anew when it is written: checkpoints may fill the memory together
        checkpoint = (name, partial(verified_checkpoint, trial, name))
    stored = trial.stored if as_stored and keep_checkpoint else None
    return ToPack(trial.id, config or trial.config, state, list(stamp), tables, checkpoint, stored)


def verified_checkpoint(trial: PackedTrial, name: str) -> bytes:
    """The content of a packed trial's checkpoint, verified.

    Raises:
        DamagedFile: it is damaged, or is not there.
        FileNotFoundError: its archive is gone.
    """
    content = trial.checkpoint(name)
    if content is None or files.digest(content) not in name:
        raise DamagedFile(f"{trial.packs.path}: the checkpoint {name} of {trial.id} is damaged")
    return content


def remove_own_files(folder: Place, *, keep_config: bool = False) -> None:
    """Remove a trial's own files, and its folders where they are empty then; what is not the trial's stays."""
    if isinstance(folder, ObjectPath) and not keep_config and _only_committed(folder):
        folder.rmdir()  # all of it, and the markers of its folders, by few requests
        return
    for kind in _KINDS:
        for name in files.names(folder / kind):
            if COMMITTED.fullmatch(name):
                with suppress(IsADirectoryError):
                    (folder / kind / name).unlink(missing_ok=True)
        _remove_empty(folder / kind)
    (folder / "state.json").unlink(missing_ok=True)
    if not keep_config:
        (folder / "config.json").unlink(missing_ok=True)
        _remove_empty(folder)


def _only_committed(folder: ObjectPath) -> bool:
    for name in folder.stamps():
        kind, _, file = name.rpartition("/")
        if not (name in ("config.json", "state.json") or (kind in _KINDS and COMMITTED.fullmatch(file)) or not file):
            return False
    return True


def _remove_empty(folder: Place) -> None:
    if isinstance(folder, Path):
        with suppress(OSError):  # it is not empty, or not there
            folder.rmdir()
