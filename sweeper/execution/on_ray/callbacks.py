"""A space's ``callbacks``: each a callback of Tune that runs in a thread of its own (:mod:`.trackers.guarded`)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from sweeper.execution.on_ray.trackers.followed import Past
from sweeper.execution.on_ray.trackers.guarded import Guarded
from sweeper.execution.on_ray.trackers.tracker import Tracker
from sweeper.execution.told_rows import ToldRows
from sweeper.execution.trackers_of import TrackerPlace, tracker_places
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Ending, Plan
from sweeper.space.options.callbacks import CALLBACKS, RayLogger, TrialCallback
from trials.errors import UserError
from trials.plugins.blaming import blaming
from trials.storage.config_file import read_config

_OVER = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Callbacks:
    """All callbacks of a run, told of trials by what the plan knows of them.

    Attributes:
        each: the callbacks, for Tune, from which they hear of rows.
    """

    each: Sequence[Guarded] = ()

    def told(self, trial_id: str) -> int | None:
        """How many rows of a trial all of them have been told; None: none of them is told of more."""
        return min((told for one in self.each if (told := one.told(trial_id)) is not None), default=None)

    def ended(self, ending: Ending) -> None:
        """Tell them that a trial is over, if no further attempt at it is made."""
        if not ending.again and ending.status in _OVER:
            for one in self.each:
                one.trial_over(ending.trial_id, failed=ending.status == "failed")

    def catch_up(self, plan: Plan) -> None:
        """Tell each of them the rest of trials that were over before this run, but of which it knows only a part."""
        over = {ending.trial_id: ending for ending in plan.before()} if self.each else {}

        def past(trial_id: str) -> Past:
            config = read_config(plan.folder.trial_folder(trial_id)).config
            return Past(config, over[trial_id].cell, failed=over[trial_id].status == "failed")

        for one in self.each:
            missed = [trial_id for trial_id in one.tracker.told.unfinished() if trial_id in over]
            one.catch_up(missed, past, lambda: plan.stopping)

    def end(self) -> None:
        """Tell them that the run is over, and wait a while until they have heard all."""
        for one in self.each:
            one.end()


def make_callbacks(
    asked: Sequence[TrialCallback], folder: SweepFolder, note: Callable[[str], None], *, groups: bool = False
) -> Callbacks:
    """Make a space's callbacks, and set them up.

    Args:
        folder: the sweep's folder, in which their files lie by default.
        note: is told once if one of them fails later.
        groups: whether points of the sweep have several trials: replicates, confirmations or segments.

    Raises:
        UserError: one of them cannot be made or set up, or is no ``ray.tune.Callback``.
    """
    begun: list[Guarded] = []
    try:
        for one in tracker_places(asked, folder):
            guarded = Guarded(_tracker(one, folder, groups), folder.trial_folder, note)
            guarded.begin()
            begun.append(guarded)
    except BaseException:
        Callbacks(begun).end()
        raise
    return Callbacks(begun)


def _tracker(at: TrackerPlace, folder: SweepFolder, groups: bool) -> Tracker:
    asked = at.asked
    try:
        told = ToldRows(at.told)
    except OSError as error:
        raise UserError(f"callbacks has {asked.name!r}, but {at.told} cannot be read ({error})") from None
    sweep = folder.path.name
    make, rest = _maker(at, sweep), (asked.timeout_s, at.begun, asked.artifacts, groups)
    return Tracker(asked.name, sweep, make, at.folder, told, *rest)


def _maker(at: TrackerPlace, sweep: str) -> Callable[[], tune.Callback]:
    asked = at.asked
    kind = CALLBACKS.require(asked.name, "callbacks")

    def make() -> tune.Callback:
        with blaming(f"callbacks has {asked.name!r}, which cannot be made"):
            found = _made(kind, at, sweep)
        if not isinstance(found, tune.Callback):
            raise UserError(
                f"callbacks has {asked.name!r}, which made {type(found).__name__}, but must make a ray.tune.Callback: "
                "derive its class from it"
            )
        return found

    return make


def _made(kind: Any, at: TrackerPlace, sweep: str) -> Any:
    options = at.asked.arguments
    if not isinstance(kind, RayLogger):
        return kind(**options)
    built_in = getattr(importlib.import_module(kind.module), kind.attribute)
    of_sweep = getattr(built_in, "of_sweep", None)
    return built_in(**options) if of_sweep is None else of_sweep(sweep, at.folder, options)
