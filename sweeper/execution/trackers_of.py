"""Where the callbacks of a space keep their files and what they were told; no Ray."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sweeper.execution.told_rows import ToldRows
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.space.options.callbacks import TrialCallback
from trials.errors import UserError
from trials.system.user_path import user_path


@dataclass(frozen=True)
class TrackerPlace:
    """A callback of a space, in a sweep's folder.

    Attributes:
        folder: for its files, a folder for each trial.
        told: the file that says what it was told, which it keeps if others are added or removed. A sweep that is begun
            anew, and a callback with other options, have another one, since they are other runs for a tracker.
        begun: hexadecimal digits that tell the sweep, as it was begun, from others of its name.
    """

    asked: TrialCallback
    folder: Path
    told: Path
    begun: str = ""


def tracker_places(callbacks: Sequence[TrialCallback], folder: SweepFolder) -> list[TrackerPlace]:
    """Return where each of a space's callbacks stands: in the folder that it had before, wherever the list has it now.

    Raises:
        UserError: the sweep lies in a bucket, and a callback has no ``folder``.
    """
    equal = Counter[str]()
    begun = folder.documents()[:1] if callbacks else []
    digest = hashlib.sha256(json.dumps(begun, sort_keys=True, default=str).encode()).hexdigest()
    files = []
    for asked in callbacks:
        content = asked.model_dump(mode="json", exclude={"folder", "timeout_s"})
        content = {key: value for key, value in content.items() if key == "name" or key in asked.arguments}
        text = json.dumps([content, begun], sort_keys=True, default=str)
        equal[text] += 1
        files.append(f"told-{hashlib.sha256(f'{text}{equal[text]}'.encode()).hexdigest()[:8]}.jsonl")
    known = [None if asked.folder else _told_before(folder, file) for asked, file in zip(callbacks, files, strict=True)]
    taken = {told.parent for told in known if told is not None}
    owners = set[Path]()
    found = []
    for asked, file, told in zip(callbacks, files, known, strict=True):
        if asked.folder is not None:
            place = user_path(asked.folder, "folder").absolute() / folder.path.name
        elif told is not None and told.parent not in owners:
            place = told.parent
        else:
            place = _free(asked, folder, taken)
        taken.add(place)
        owners.add(place)
        found.append(TrackerPlace(asked, place, told or place / file, digest[:8]))
    return found


def _told_before(folder: SweepFolder, file: str) -> Path | None:
    """The file of what a callback was told, in the folder that it has by default; of several, the last one written."""
    if not isinstance(folder.path, Path):
        return None
    return max(folder.path.glob(f"logs/*/{file}"), key=lambda path: path.stat().st_mtime_ns, default=None)


def _free(asked: TrialCallback, folder: SweepFolder, taken: Collection[Path]) -> Path:
    """The first folder for a callback that no other one has or had."""
    if not isinstance(folder.path, Path):
        raise UserError(
            f"callbacks has {asked.name!r}, which may write files on this machine, but the sweep lies in "
            f"{folder.path}: give {{name: {asked.name}, folder: PATH}}"
        )
    name = asked.name.replace(":", ".")
    places = (folder.path / "logs" / (f"{name}-{number}" if number > 1 else name) for number in count(1))
    return next(place for place in places if place not in taken and not any(place.glob("told-*.jsonl")))


def unheard(plan: Plan) -> bool:
    """Whether a callback knows only a part of a trial that is over: its driver was killed, or it had failed."""
    callbacks = plan.space.callbacks
    over = {ending.trial_id for ending in plan.before()} if callbacks else set()
    return any(not over.isdisjoint(_unfinished(one, over)) for one in tracker_places(callbacks, plan.folder))


def _unfinished(at: TrackerPlace, over: Collection[str]) -> Collection[str]:
    try:
        return ToldRows(at.told).unfinished()
    except OSError:
        return over  # the run says why it cannot be read
