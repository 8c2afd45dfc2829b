"""Shared trials: a dense training that several trials start from; the first to need it computes it under a lease.

Which of them a trial needs, and whether one that is there has the content that its name promises, is known before
anything starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trials.config.stored_content import ABSENT, differing_fields
from trials.config.trial_config import TrialConfig
from trials.errors import (
    DEAD_DEVICE,
    DEAD_WHERE,
    OUT_OF_MEMORY,
    DamagedFile,
    DeadDevice,
    Preempted,
    Superseded,
    UserError,
    shown,
)
from trials.methods.dense import copied, copies_shared
from trials.methods.registry import METHODS
from trials.storage.config_file import CONFIG, read_config, write_config
from trials.storage.leases.lease import Lease
from trials.storage.outages import errs
from trials.storage.place import ObjectPath, Place
from trials.storage.read_once import SOURCES
from trials.storage.rows import Rows
from trials.storage.trial_folder import State, TrialFolder

SHARED_POLL_S, SHARED_POLL_STORE_S = 0.2, 2.0
"""Seconds between a waiting trial's checks whether its shared trial is complete, on a path and in an object store."""

MOST_FAILURES = 3
"""After this many failures a shared trial is not attempted again; trials that need it fail at once."""


def shared_by(config: TrialConfig) -> dict[str, TrialConfig]:
    """Configs, by id, of the shared trials that a trial needs: its source, its references, and what these need."""
    method = METHODS[config.method](config)
    found: dict[str, TrialConfig] = {}
    for other in (copied(config) if copies_shared(config) else method.source(), *method.references().values()):
        if other is not None:
            found[other.id] = other
            found |= {} if other.method == "dense" else shared_by(other)
    return found


def shared_name(trial_id: str, fingerprint: str) -> str:
    """Folder name of a shared trial: its config's id and the start of its data's fingerprint.

    With ``precision: auto`` the precision that it became may follow: see :func:`folder_in`.
    """
    return f"{trial_id}-{fingerprint[:6]}"


def folder_in(stages: Place, name: str, config: TrialConfig, precision: str) -> TrialFolder:
    """The folder of a shared trial named ``name`` (:func:`shared_name`) that is trained in ``precision``.

    ``precision: auto`` becomes another precision on another kind of device, under one trial id. So that no trial starts
    from a network of another precision, all but float32 is in the folder's name. A folder without it that an older
    version has trained otherwise is left alone.
    """
    folder = TrialFolder(stages / name)
    if config.precision == "auto" and (precision != "float32" or _trained_otherwise(folder)):
        return TrialFolder(stages / f"{name}-{precision}")
    return folder


def names_of(name: str, config: TrialConfig) -> tuple[str, ...]:
    """All names that the folder of a shared trial may have, for who does not know on which devices it is trained."""
    return (name, f"{name}-bf16", f"{name}-float32") if config.precision == "auto" else (name,)


def _trained_otherwise(folder: TrialFolder) -> bool:
    """Whether a shared trial was trained in another precision than float32, as far as is known."""
    state = _state(folder)
    return state is not None and any(found.get("precision", "float32") != "float32" for found in state.environments)


@dataclass(frozen=True)
class Obtained:
    """A complete shared trial: its state, and the checkpoint and the rows of its last commit."""

    state: State
    checkpoint: dict[str, Any]
    rows: Rows


def obtain(folder: TrialFolder, compute: Callable[[], State], should_stop: Callable[[], bool]) -> Obtained:
    """Return a shared trial, computing it first if needed.

    One process calls ``compute`` under the folder's lease while the others wait. If the lease's owner dies, another
    process takes over and continues from the last commit.

    Raises:
        Preempted: asked to stop while waiting or computing.
        RuntimeError: the shared trial failed, now or ``MOST_FAILURES`` times before.
        MemoryError: it failed now because memory ran out.
        DeadDevice: it failed now because the device no longer answers.
    """
    lease = Lease(folder.path)
    while True:
        state = _state(folder)
        if state is not None and state.status == "complete":
            try:
                return _whole(folder, state)
            except DamagedFile:  # computing it again starts with a repair
                _KNOWN.forget(folder)
        if state is not None and state.failures >= MOST_FAILURES:
            raise RuntimeError(f"shared trial {folder.path.name} failed {state.failures} times: {state.error}")
        if lease.acquire():
            try:
                with lease:
                    state = compute()
            except Superseded:
                continue  # another process has taken the shared trial over and computes it now
            if state.status == "failed":
                raise _failure(folder.path.name, state.error or {})
            if state.status == "preempted":
                raise Preempted
        elif should_stop():
            raise Preempted
        else:
            time.sleep(SHARED_POLL_S if isinstance(folder.path, Path) else SHARED_POLL_STORE_S)


def _whole(folder: TrialFolder, state: State) -> Obtained:
    """A complete shared trial; its files are read once per process. Raises DamagedFile."""
    commit = state.commits[-1]
    files_read = [folder.path / "rows" / name for name in commit.rows.values()]
    if commit.checkpoint is not None:
        files_read.append(folder.path / "checkpoint" / commit.checkpoint)
    fixed = isinstance(folder.path, ObjectPath)  # the hash in a name is the content's, and each question is a request
    read = SOURCES.get(
        "shared trial", files_read, lambda: (folder.checkpoint(commit), folder.rows(commit)), fixed=fixed
    )
    _KNOWN.complete(folder, state)
    return Obtained(state, *read)


class _KnownComplete:
    """Shared trials in object stores that this process has found complete, and compared with their configs.

    They stay as they are, and to ask the store for each trial that starts from them takes six requests.
    """

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._compared: set[tuple[str, str]] = set()

    def state(self, folder: TrialFolder) -> State | None:
        return self._states.get(str(folder.path))

    def complete(self, folder: TrialFolder, state: State) -> None:
        if isinstance(folder.path, ObjectPath):
            self._states[str(folder.path)] = state

    def forget(self, folder: TrialFolder) -> None:
        self._states.pop(str(folder.path), None)

    def is_compared(self, folder: TrialFolder, config: TrialConfig) -> bool:
        return self.state(folder) is not None and (str(folder.path), config.id) in self._compared

    def compared(self, folder: TrialFolder, config: TrialConfig) -> None:
        self._compared.add((str(folder.path), config.id))


_KNOWN = _KnownComplete()


def _failure(name: str, error: dict[str, str]) -> Exception:
    """What a trial raises that needed a shared trial which has just failed with ``error`` in this process."""
    message = f"shared trial {name} failed: {error}"
    if error.get("type") == DEAD_DEVICE:
        where = {key: value for key, value in error.items() if key in DEAD_WHERE}
        return DeadDevice(
            f"shared trial {name} failed: {error.get('message')}", culprit=error.get("culprit") or name, where=where
        )
    return MemoryError(message) if error.get("type") == OUT_OF_MEMORY else RuntimeError(message)


def require_same_config(folder: TrialFolder, config: TrialConfig) -> list[str]:
    """Write the config of a shared trial that has not begun; otherwise compare it with ``config``.

    A changed default of the code gives another content the same name. Trials of versions that wrote no ``config.json``
    are not compared. A damaged ``config.json`` is set aside and written anew, and so is what lies in the folder's place
    and is none. Returns a line for each.

    Raises:
        UserError: the shared trial of this name has another content.
    """
    if _KNOWN.is_compared(folder, config):
        return []
    lines = folder.put_away_strangers()
    try:
        _compare(folder.path, config)
        _KNOWN.compared(folder, config)
    except FileNotFoundError:
        if _state(folder) is None:
            write_config(folder.path, config.id, config.model_dump(mode="json"))
    except DamagedFile as damage:
        lines.append(folder.put_away(damage, folder.path / CONFIG))
        write_config(folder.path, config.id, config.model_dump(mode="json"))
    return lines


def refuse_other_content(
    stages: Place, needed: Iterable[TrialConfig], fingerprint: str, there: Container[str] | None = None
) -> None:
    """Compare shared trials that are in the folder ``stages`` with their configs; writes nothing.

    Trials without a ``config.json`` are not compared.

    Args:
        fingerprint: of the data that they are trained on.
        there: the names in the folder, where they are known.

    Raises:
        UserError: one of them has another content than its name promises now.
    """
    for config in needed:
        names = names_of(shared_name(config.id, fingerprint), config)
        for name in names if there is None else filter(there.__contains__, names):
            with suppress(FileNotFoundError, DamagedFile):  # damage is repaired by who needs the trial
                _compare(stages / name, config)


def _compare(folder: Place, config: TrialConfig) -> None:
    """Raises UserError if the ``config.json`` has another content, FileNotFoundError if there is none, DamagedFile."""
    try:
        stored = read_config(folder).config
        fields = [field for field in differing_fields(stored, config) if field[0] not in config.file_hashes]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        if errs(error):
            raise
        return
    for name, before, now in fields[:1]:
        raise UserError(
            f"shared trial {folder.name} was made with {'none' if before is ABSENT else shown(before)} as its "
            f"{name}, but the default is {shown(now)} now: set the earlier value, or give another --storage"
        )


def _state(folder: TrialFolder) -> State | None:
    if (known := _KNOWN.state(folder)) is not None:
        return known
    try:
        return folder.state()
    except DamagedFile:
        return None
