"""Where the callbacks of a space keep their files and what they were told; no Ray."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeper.execution.told_rows import ToldRows
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.space.options.callbacks import TrialCallback
from trials.errors import UserError


@dataclass(frozen=True)
class TrackerPlace:
    """A callback of a space, in a sweep's folder.

    Attributes:
        folder: for its files, a folder for each trial.
        told: the file that says what it was told. A sweep that is begun anew, and a callback with other options, have
            another one, since they are other runs for a tracker.
    """

    asked: TrialCallback
    folder: Path
    told: Path


def tracker_places(callbacks: Sequence[TrialCallback], folder: SweepFolder) -> Iterator[TrackerPlace]:
    """Yield where each of a space's callbacks stands.

    Raises:
        UserError: the sweep lies in a bucket, and a callback has no ``folder``.
    """
    names, equal = Counter[str](), Counter[str]()
    begun = folder.documents()[:1] if callbacks else []
    for asked in callbacks:
        content = asked.model_dump(mode="json", exclude={"folder", "timeout_s"})
        text = json.dumps([content, begun], sort_keys=True, default=str)
        names[asked.name] += 1
        equal[text] += 1
        place = _folder(asked, folder, names[asked.name])
        digest = hashlib.sha256(f"{text}{equal[text]}".encode()).hexdigest()[:8]
        yield TrackerPlace(asked, place, place / f"told-{digest}.jsonl")


def _folder(asked: TrialCallback, folder: SweepFolder, number: int) -> Path:
    """Where a callback's files lie; ``number``: it is the second, third, ... of its name."""
    name = asked.name.replace(":", ".") + (f"-{number}" if number > 1 else "")
    if asked.folder is not None:
        return Path(asked.folder).expanduser().absolute() / folder.path.name
    if not isinstance(folder.path, Path):
        raise UserError(
            f"callbacks has {asked.name!r}, which may write files on this machine, but the sweep lies in "
            f"{folder.path}: give {{name: {asked.name}, folder: PATH}}"
        )
    return folder.path / "logs" / name


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
