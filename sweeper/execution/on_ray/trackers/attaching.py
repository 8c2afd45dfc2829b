"""Attaches files of a trial that is complete to its run in a tracker, once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from sweeper.execution.on_ray.trackers.followed import Followed
from sweeper.execution.on_ray.trackers.tracker import Tracker
from trials.errors import DamagedFile, UserError, one_line
from trials.storage.place import Place
from trials.storage.trial_folder import TrialFolder


class Attaching:
    """The artifacts of a callback in this run of the sweep.

    Attributes:
        trials, size_bytes: how many trials it has attached files of, and their size.
        missing: by trial, why it has none.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.trials, self.size_bytes = 0, 0
        self.missing: dict[str, str] = {}

    def attach(self, callback: Any, followed: Followed, trial: Place) -> None:
        """Attach the artifacts of a trial that is complete, unless its run has them.

        Args:
            callback: has a method ``attach(trial, folder, sizes)``, which returns once the files may go. What it
                raises is raised.
        """
        trial_id, told = followed.trial_id, self._tracker.told
        if not self._tracker.artifacts or told.attached(trial_id):
            return
        with tempfile.TemporaryDirectory(prefix="sweeper-artifacts-", ignore_cleanup_errors=True) as scratch:
            folder = Path(scratch) / "files"
            folder.mkdir()
            try:
                state = TrialFolder(trial).state()
                if state is None or state.status != "complete":
                    return
                from trials.networks.attached import write_attached  # imports torch, which few callbacks need

                sizes = write_attached(trial, folder, self._tracker.artifacts)
            except (UserError, DamagedFile, OSError) as error:
                self.missing[trial_id] = one_line(str(error))
                return
            callback.attach(followed, folder, sizes)  # files of a network may be large: only one trial's lie there
        self.trials, self.size_bytes = self.trials + 1, self.size_bytes + sum(sizes.values())
        told.attach(trial_id)

    def lines(self) -> list[str]:
        """What to say of it at the end of a run."""
        name, said = self._tracker.name, []
        if self.trials:
            trials = "1 trial" if self.trials == 1 else f"{self.trials} trials"
            said.append(f"the callback {name} attached artifacts of {trials}, {self.size_bytes / 1e6:.3g} MB in all")
        if self.missing:
            first, why = next(iter(self.missing.items()))
            more = f", as {len(self.missing) - 1} more" if len(self.missing) > 1 else ""
            said.append(f"the callback {name} has no artifacts of {first}{more}: {why}")
        return said
