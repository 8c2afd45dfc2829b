"""Seconds per epoch of finished trials in a storage, by kind of stage and device."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeper.folder.sweep_folder import SweepFolder
from trials.errors import DamagedFile, UserError
from trials.methods.parsing import parse_stored
from trials.methods.registry import METHODS
from trials.running.rates import StageKind
from trials.storage import files
from trials.storage.config_file import read_config
from trials.storage.packed.reading import trial_names
from trials.storage.place import Place
from trials.storage.trial_folder import TrialFolder

MOST_READ = 8
"""Finished trials of a method whose rows are read, in each folder of trials."""

MOST_TRIED = 100
"""Trials of a method that are looked at for these, in each folder."""


@dataclass(frozen=True)
class StoredRates:
    """Seconds of an epoch by kind of stage, on one device.

    Attributes:
        device: its name.
        seconds: medians over the epochs of all trials that were read.
        trials: how many were read.
    """

    device: str
    seconds: dict[StageKind, float]
    trials: int


def stored_rates(storage: Place, kinds: Iterable[StageKind], device: str | None) -> StoredRates | None:
    """Return the rates of kinds of stages in a storage; None if there are none.

    Args:
        device: name of the device to prefer, that of this machine; otherwise the one with most of the kinds counts.
    """
    wanted = set(kinds)
    methods = {kind.method for kind in wanted}
    found: dict[str, dict[StageKind, list[float]]] = defaultdict(lambda: defaultdict(list))
    read: dict[str, int] = defaultdict(int)
    for folder in _folders(storage):
        for method in sorted(methods):
            for where, rows in _rows(folder, method, wanted):
                read[where] += 1
                for kind, seconds in rows:
                    found[where][kind].append(seconds)
    if not found:
        return None
    best = device if device in found else max(found, key=lambda name: (len(found[name]), read[name]))
    medians = {kind: statistics.median(seconds) for kind, seconds in found[best].items()}
    return StoredRates(best, medians, read[best])


def _folders(storage: Place) -> Iterator[Place]:
    """The folders of trials of a storage: the shared ones, and those of every sweep."""
    for name in sorted(files.names(storage)):
        yield storage / name if name == "stages" else SweepFolder(storage / name).trials


def _rows(folder: Place, method: str, wanted: set[StageKind]) -> Iterator[tuple[str, list[tuple[StageKind, float]]]]:
    """Yield the device, and the seconds of each epoch, of the first trials of a method whose stages are wanted."""
    try:
        names = sorted(name for name in trial_names(folder) if name.startswith(f"{method}-"))
    except OSError:  # no sweep: a link in circles, another user's folder
        return
    read = 0
    for name in names[:MOST_TRIED]:
        one = _trial(TrialFolder(folder / name), wanted)
        if one is not None:
            yield one
            read += 1
        if read >= MOST_READ:
            return


def _trial(trial: TrialFolder, wanted: set[StageKind]) -> tuple[str, list[tuple[StageKind, float]]] | None:
    try:
        config = parse_stored(read_config(trial.path).config)
        kinds = {stage.name: StageKind.of(config, stage) for stage in METHODS[config.method](config).stages()}
        state = trial.state()
        if not wanted & set(kinds.values()) or state is None or state.status != "complete" or not state.commits:
            return None
        table = trial.table(state.commits[-1], "epochs")
        rows = [] if table is None else table.select(["stage", "epoch", "seconds", "stage_id"]).to_pylist()
    except (OSError, ValueError, KeyError, TypeError, UserError, DamagedFile):
        return None
    if table is None:
        return None
    own = [row for row in rows if row["epoch"] > 0 and row["stage_id"] is None and row["stage"] in kinds]
    threads = state.environments[-1].get("threads") if state.environments else None
    where = device_label(state.device, threads)
    return where, [(kinds[row["stage"]], row["seconds"]) for row in own if row["seconds"] is not None]


def device_label(device: str, threads: object) -> str:
    """Return a device's name; of a CPU, with the number of threads.

    >>> device_label("cpu", 2)
    'cpu (2 threads)'
    """
    if device != "cpu" or threads is None:
        return device
    return f"cpu ({threads} thread{'' if threads == 1 else 's'})"


def is_local(storage: Place) -> bool:
    """Whether a storage is a folder, in which reading many small files takes no time."""
    return isinstance(storage, Path)
