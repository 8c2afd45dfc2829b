"""A callback of a space, told of trials as the sweep has them, in a thread of its own: it can neither stop nor slow it.

Tune's trials are attempts, its config is an assignment, and its results are any messages of a worker. A callback is
told of a trial once, however many attempts it takes, of each row of its table ``epochs`` once, and of its end.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import LoggerCallback

from sweeper.execution.on_ray.trackers.attaching import Attaching
from sweeper.execution.on_ray.trackers.followed import Followed, Past, committed_rows
from sweeper.execution.on_ray.trackers.point import group_name, point_of
from sweeper.execution.on_ray.trackers.tracker import Tracker
from trials.errors import DamagedFile, UserError, exact, one_line
from trials.plugins.blaming import blaming
from trials.storage import files

_OF_TUNE = ("time_this_iter_s", "time_total_s", "timestamp", "date", "pid", "hostname", "node_ip")
"""Keys of Tune's results that its loggers expect, beside ``training_iteration`` and ``config``."""

MOST_BEHIND = 10_000
"""Events of this run that may wait for a callback; one that is further behind is given up for this run."""

POLL_S = 0.1


class Guarded(tune.Callback):  # type: ignore[misc]  # Ray is not typed
    """Hands events to a callback; one that raises, hangs or falls far behind is told of nothing more in this run.

    A sweep goes on without it: what it would have logged stands in the tables too, and the next run tells it.

    Args:
        trial_folder: the folder of a trial, by its id.
        note: is told once if it fails, in the driver's main thread.
    """

    def __init__(self, tracker: Tracker, trial_folder: Callable[[str], Any], note: Callable[[str], None]) -> None:
        self.tracker, self.note, self._trial_folder = tracker, note, trial_folder
        self.failed = False
        self._attaching = Attaching(tracker)
        self._failure: str | None = None  # not yet said
        self._open: dict[str, Followed] = {}
        self._seen: dict[str, Followed] = {}  # the callback's thread alone uses it
        self._events: queue.SimpleQueue[tuple[str, Callable[[], None]] | None] = queue.SimpleQueue()
        self._missed: deque[str] = deque()  # trials of earlier runs that it must still be told of
        self._left = 0  # how many of them stay for the next run
        self._late: Iterator[tuple[str, Callable[[], None]]] = iter(())
        self._late_until = math.inf
        self._stopping: Callable[[], bool] = lambda: False
        self._behind: Followed | None = None  # the one of them that it is told of
        self._doing: tuple[str, float] | None = None  # what the callback does, and since when
        self._ready = threading.Event()
        self._refused: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"callback {tracker.name}", daemon=True)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks at the start

    def begin(self) -> None:
        """Make the callback and set it up; Tune would set it up for each Tuner.

        Raises:
            UserError: it cannot be made or set up, or is no ``ray.tune.Callback``.
        """
        self._thread.start()
        what = f"callbacks has {self.tracker.name!r}, which cannot be set up"
        if not self._ready.wait(self.tracker.timeout_s):
            self.failed = True
            raise UserError(
                f"{what} within {exact(self.tracker.timeout_s)} s: give it a larger timeout_s, or leave it out"
            )
        if self._refused is not None:
            with blaming(what):
                if isinstance(self._refused, Exception | SystemExit):
                    raise self._refused
                raise UserError(f"{what}: {_said(self._refused)}")
        try:
            self.tracker.told.open()
        except OSError as error:
            self._events.put(None)
            raise UserError(f"{what}: {self.tracker.told.path} cannot be written ({error})") from None

    def told(self, trial_id: str) -> int | None:
        """How many rows of a trial it has been told; None if it is told of nothing more."""
        return None if self.failed else self.tracker.told.rows_of(trial_id)

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._say()
        self._step("on_step_begin", iteration)

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        self._step("on_step_end", iteration)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        message = trial.config
        trial_id = str(message["trial"])
        if trial_id not in self._open:
            followed = self._begun(trial_id, message["config"], message.get("cell", ""))
            if followed is None:
                return
            followed.attempt = trial
            self._open[trial_id] = followed
            self._put("on_trial_start", lambda: self._start(followed))
        self._open[trial_id].attempt = trial

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        followed = self._open.get(str(trial.config["trial"]))
        rows: list[dict[str, Any]] | None = result.get("rows")
        if followed is not None and rows:
            known = {key: result[key] for key in _OF_TUNE if key in result}
            self._put("on_trial_result", lambda: self._tell_rows(followed, rows, known))

    def trial_over(self, trial_id: str, failed: bool) -> None:
        """Tell it that a trial is over, and which committed rows it has not been told (a worker died before)."""
        followed = self._open.pop(trial_id, None)
        if followed is not None:
            self._put("on_trial_complete", lambda: self._finish(followed, failed))

    def catch_up(
        self, missed: Iterable[str], past: Callable[[str], Past], stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """Tell it the rest of trials that were over before this run, whenever nothing of this run waits for it.

        Args:
            missed: the trials; those that the run leaves no time for stay for the next one.
            past: returns one of them; runs in the callback's thread.
            stopping: whether the run is to stop soon, so that it does not wait for this at its end.
        """
        self._missed, self._stopping = deque(missed), stopping
        self._late = self._late_events(past)
        self._events.put(("on_trial_start", lambda: None))  # it may wait for an event

    def end(self) -> None:
        """Tell it that the run is over, and wait until it has heard all, for ``timeout_s`` at most.

        Before, it is told of trials of earlier runs for as long, unless the run is to stop.
        """
        limit = self.tracker.timeout_s
        late = bool(self._missed or self._behind) and not self._stopping()
        self._late_until = time.monotonic() + (limit if late else 0)
        until = self._late_until + limit
        for followed in self._open.values():
            self._put("on_trial_complete", partial(self._close, followed, "PAUSED"))
        self._put("on_experiment_end", self._end_of_run)
        self._events.put(None)
        while self._thread.is_alive() and not self.failed:
            self._thread.join(POLL_S)
            if time.monotonic() > until:
                behind = self._events.qsize() + 1
                self._fail(f"had not heard all when the run ended, nor {limit:g} s later ({behind} left)")
        self.tracker.told.close()
        self._say()
        for line in self._attaching.lines():
            self.note(line)
        if self._left and not self.failed:
            self.note(
                f"the callback {self.tracker.name} has not caught up with earlier runs: {self._left} of their trials "
                "are left, which the next run tells it"
            )

    def _begun(self, trial_id: str, config: dict[str, Any], cell: str) -> Followed | None:
        known = self.tracker.told.known(trial_id)
        try:
            told = self.tracker.told.begin(trial_id)
        except OSError as error:
            self._fail(f"cannot note what it was told ({error})")
            return None
        place, sweep = self.tracker.folder, self.tracker.sweep
        return Followed(trial_id, config, cell, told, resumed=known, folder=place, sweep=sweep)

    def _put(self, event: str, work: Callable[[], None]) -> None:
        if not self.failed:
            self._events.put((event, work))
            if self._events.qsize() > MOST_BEHIND:
                self._fail(f"has fallen {MOST_BEHIND} events behind")

    def _step(self, event: str, iteration: int) -> None:
        """Tell it of Tune's steps, if it wants to know, and leave them out while it is busy."""
        callback = type(getattr(self, "callback", self))
        if getattr(callback, event) is not getattr(tune.Callback, event) and self._events.empty():
            self._put(event, lambda: self._call(event, iteration=iteration))

    def _fail(self, what: str) -> None:
        if not self.failed:
            self.failed, self._failure = True, what

    def _say(self) -> None:
        doing, limit = self._doing, self.tracker.timeout_s
        if doing is not None and time.monotonic() - doing[1] > limit:
            self._fail(f"has not returned from {doing[0]} for {limit:g} s")
        if self._failure is not None:
            self.note(
                f"the callback {self.tracker.name} {self._failure}: it is told of nothing more in this run, and the "
                "sweep goes on; the next run tells it what it has missed"
            )
            self._failure = None

    # What follows runs in the callback's thread.

    def _work(self) -> None:
        try:
            self.callback = self.tracker.make()
            self.callback.setup(stop=None, num_samples=-1, total_num_samples=-1)
        except BaseException as error:  # noqa: BLE001  raised where the driver waits
            self._refused = error
            return
        finally:
            self._ready.set()
        while (asked := self._next()) is not None and not self.failed:
            event, work = asked
            self._doing = event, time.monotonic()
            try:
                work()
            except BaseException as error:  # noqa: BLE001  whatever the callback's code raises; no signal comes here
                event = self._doing[0]
                self._fail(f"failed in {event} ({_said(error)})")
                return
            finally:
                self._doing = None

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        """What to tell next: what happens in this run goes before what earlier runs have left."""
        with suppress(queue.Empty):
            return self._events.get_nowait()
        return next(self._late, None) or self._events.get()

    def _late_events(self, past: Callable[[str], Past]) -> Iterator[tuple[str, Callable[[], None]]]:
        while self._missed:
            trial_id = self._missed.popleft()
            if trial_id in self._seen or self.tracker.told.ended(trial_id):
                continue  # it goes on in this run, which tells all of it
            try:
                found, rows = past(trial_id), committed_rows(self._trial_folder(trial_id))
            except (OSError, ValueError, LookupError, TypeError, DamagedFile):
                self._left += 1  # what cannot be read now may be read by the next run
                continue
            self._behind = followed = self._begun(trial_id, found.config, found.cell)
            if followed is None:
                return
            yield "on_trial_start", partial(self._start, followed)
            for row in rows:
                if row["training_iteration"] > followed.rows and self._behind is followed:
                    yield "on_trial_result", partial(self._tell_rows, followed, [row], {})
            if self._behind is followed:
                yield "on_trial_complete", partial(self._end_of_trial, followed, found.failed)

    def _end_of_run(self) -> None:
        while not (self.failed or self._stopping() or time.monotonic() > self._late_until):
            late = next(self._late, None)
            if late is None:
                break
            late[1]()
        self._left += len(self._missed) + (self._behind is not None)
        self._pause_late()
        self._call("on_experiment_end")

    def _pause_late(self) -> None:
        followed, self._behind = self._behind, None
        if followed is not None and followed.trial_id in self._seen:
            self._close(followed, "PAUSED")

    def _call(self, event: str, **details: Any) -> None:
        self._doing = event, time.monotonic()
        getattr(self.callback, event)(trials=list(self._seen.values()), **details)

    def _start(self, followed: Followed) -> None:
        if self._behind is not None and self._behind.trial_id == followed.trial_id and self._behind is not followed:
            self._pause_late()  # it goes on in this run
        followed.rows = max(followed.rows, self.tracker.told.rows_of(followed.trial_id))
        self._seen[followed.trial_id] = followed
        followed.point = point_of(self._trial_folder(followed.trial_id), followed.cell)
        followed.group = group_name(self.tracker.sweep, self.tracker.begun, followed.point.name)
        followed.grouped = self.tracker.groups
        if isinstance(self.callback, LoggerCallback) and ":" in self.tracker.name:
            followed.init_local_path()  # Ray's own loggers expect it, as Tune makes it
        self._call("on_trial_start", trial=followed, iteration=0)
        files.share_below(Path(followed.local_path))

    def _tell_rows(self, followed: Followed, rows: Sequence[dict[str, Any]], known: dict[str, Any]) -> None:
        trial_id = followed.trial_id
        for row in rows:
            number = row["training_iteration"]
            if number <= followed.rows:
                continue
            own = {"trial_id": trial_id, "cell": followed.cell, "config": followed.config, "done": False}
            self._call("on_trial_result", trial=followed, iteration=number, result={**known, **row, **own})
            followed.rows = number
            self.tracker.told.row(trial_id, number)
            if self.failed:
                return

    def _finish(self, followed: Followed, failed: bool) -> None:
        self._tell_rows(followed, committed_rows(self._trial_folder(followed.trial_id)), {})
        if not self.failed:
            self._end_of_trial(followed, failed)

    def _end_of_trial(self, followed: Followed, failed: bool) -> None:
        self._doing = "attaching its artifacts", time.monotonic()
        self._attaching.attach(self.callback, followed, self._trial_folder(followed.trial_id))
        self._close(followed, "ERROR" if failed else "TERMINATED")
        self.tracker.told.end(followed.trial_id)
        if self._behind is followed:
            self._behind = None

    def _close(self, followed: Followed, status: str) -> None:
        followed.status = status
        event = "on_trial_error" if status == "ERROR" else "on_trial_complete"
        self._call(event, trial=followed, iteration=0)
        files.share_below(Path(followed.local_path))
        self._seen.pop(followed.trial_id, None)


def _said(error: BaseException) -> str:
    return one_line(" ".join(f"{type(error).__name__}: {error}".split()))
