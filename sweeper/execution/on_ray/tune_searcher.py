"""The Tune searcher that suggests a plan's assignments and reports to the plan how each ended."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ray.tune.search import Searcher

from sweeper.execution.assignment_messages import AssignmentMessages
from sweeper.execution.driver_storage import DriverStorage
from sweeper.execution.live_view import LiveView
from sweeper.execution.on_ray.callbacks import Callbacks
from sweeper.execution.on_ray.cluster import this_machine
from sweeper.execution.on_ray.places import COUNT_EVERY_S, Places
from sweeper.execution.short_memory import ShortMemory
from sweeper.execution.shown_endings import ShownEndings
from sweeper.execution.stop_file import StopFile
from sweeper.execution.table_writer import TableWriter
from sweeper.search.failures import commit_failure
from sweeper.search.plan import Assignment, Ending, Plan
from sweeper.search.sick_machines import Card
from trials.config.named_objects import code_of
from trials.errors import Preempted, StorageError
from trials.methods.parsing import parse
from trials.plugins.importing import sent
from trials.running.shared_trials import shared_by
from trials.storage import files
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

_R = TypeVar("_R")


def _patient(method: Callable[..., _R]) -> Callable[..., _R]:
    """Let a method wait for a storage that errs. What ends the run is noted: Tune wraps what its searcher raises."""

    @functools.wraps(method)
    def called(self: PlanSearcher, *arguments: Any, **options: Any) -> _R:
        try:
            with self.storage.patience.active():
                return method(self, *arguments, **options)
        except (StorageError, Preempted) as error:
            self.storage.ended_by = self.storage.ended_by or error
            raise

    return called


class PlanSearcher(Searcher):  # type: ignore[misc]  # Ray is not typed
    """Adapts a plan to Tune: each suggestion is one attempt at one trial. All its state is in the sweep's folder."""

    def __init__(self, plan: Plan, display: LiveView, lease: Lease) -> None:
        super().__init__(metric="trial", mode="max")
        self.plan, self.folder, self.display, self.lease = plan, plan.folder, display, lease
        self.stop = StopFile(plan.folder.stop)
        self.copies: Mapping[str, str] = {}  # of users' code, by entry, which no edit reaches
        self._trial_of: dict[str, str] = {}
        self.places = Places(plan.space, plan.sick, display.note)
        self._card_of: dict[str, Card] = {}
        self.memory, self._excused = ShortMemory(), set[str]()
        self.again = False
        self.callbacks = Callbacks()
        self._looked = -math.inf
        self._said = set[str]()  # barred machines that the display has named
        self._heard: dict[str, float] = {}  # time of each running trial's last sign of life
        self._tables = TableWriter(plan.folder, plan.finished)
        self.storage = DriverStorage(plan, display.note)
        self._endings = ShownEndings(plan, display, self.memory.why)
        with self.storage.patience.active():
            self._messages = AssignmentMessages(plan)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle nothing: Tune pickles its searcher at the start, and this one has no state to save."""
        return {}

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        return True

    @_patient
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next assignment as a config for Tune; None to be asked again, ``FINISHED`` when the plan is over."""
        if self.lease.lost:
            self.plan.stop()
        self._stop_if_asked()
        if self._is_full() or self.storage.pauses:
            return None
        assignment = self.storage.next_assignment()
        while self.plan.already_done:
            self._endings.count(self.plan.already_done.popleft(), already=True)
        while self.plan.unread:
            endings = self.plan.unread.popleft()
            self.display.started(endings[0].trial_id, endings[0].cell)
            self._show(endings)
        self._endings.say_ended_searches()
        if assignment is None:
            return Searcher.FINISHED if self.plan.over else None
        self._trial_of[trial_id] = assignment.trial_id
        self.display.started(assignment.trial_id, assignment.cell)
        message = self._message(assignment)
        self.places.asked(trial_id, message, assignment)
        return message

    def _message(self, assignment: Assignment) -> dict[str, Any]:
        """The assignment as JSON, for a worker."""
        message = self._messages.of(assignment)
        request, alone = self.places.request(assignment)
        return {
            **message,
            "gpu": request.each.get("GPU", 0),
            "resources": dict(request.each),
            "pieces": request.pieces,
            "avoid": list(request.avoid),
            "alone": alone,
            "followed": self.callbacks.told(assignment.trial_id),
            "plugins": sent(code_of(assignment.config), self.copies),
        }

    def _is_full(self) -> bool:
        """Whether enough trials run: what the cluster holds for this sweep and one that waits, so that no worker idles;
        or ``max_concurrent``."""
        self.places.say_waiting()
        if self.places.only_barred():
            self._stop_without_machines()
        limit, running = self.memory.most(self.plan.space.max_concurrent), len(self.plan.running)
        return (limit is not None and running >= limit) or self.memory.refuses(running) or self.places.is_full()

    @_patient
    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Handle a message of a trial: a row, a step to judge, a note, or that its machine lacks storage or device."""
        mine = self._trial_of.get(trial_id)
        if mine is None:
            return
        self._heard[trial_id] = time.monotonic()
        self.display.answered(mine)
        self.places.began(trial_id, result)
        card = Card.said_by(result)
        if card is not None:
            if trial_id not in self._card_of:
                self.plan.sick.began(mine, card)
            self._card_of[trial_id] = card
            if result.get("epoch"):  # 0: nothing is trained yet
                self.plan.sick.worked(card)
        if "step" in result:  # the trial waits, then reads the decision from its folder
            self.plan.judge(mine, result["step"], result["value"], result)
        if "epoch" in result:
            self.display.row(mine, result)
        elif "storage" in result:
            text = f"{result['machine']}: {result['storage']}" if "machine" in result else result["storage"]
            self.storage.news.heard(trial_id, text, errs=result["errs"])
        elif "lost" in result:
            self._lost_storage(trial_id, card, result["lost"])
        elif "note" in result:
            self.display.note(f"{mine}: {result['note']}")
        elif "blind" in result:
            self._take_off(trial_id, card, result["blind"], f"does not see the storage {self.folder.path.parent}")
        elif "unfit" in result:
            self._take_off(trial_id, card, result.get("machine", "a machine"), result["unfit"])
        elif "cannot" in result:
            self._could_not_begin(trial_id, card, *result["cannot"])
        elif "dead" in result:
            self._take_back(trial_id)
            self.plan.sick.died(card, None)
            self.say_barred()

    def _take_back(self, trial_id: str) -> None:
        self.places.gone(trial_id)
        self.plan.take_back(self._trial_of.pop(trial_id))

    def _take_off(self, trial_id: str, card: Card | None, machine: str, reason: str) -> None:
        """A machine can run no trial: its trial goes elsewhere, and it gets no more."""
        self._take_back(trial_id)
        if card is None:
            self.display.note(f"{machine} {reason}: no trial runs there")
            return
        self.plan.sick.take_off(card, reason)
        self.say_barred()

    def _lost_storage(self, trial_id: str, card: Card | None, reason: str) -> None:
        """A trial has waited in vain for the storage. It goes elsewhere, if this machine and another one can use it.

        Raises:
            StorageError: this machine cannot use it, either.
        """
        self._take_back(trial_id)
        self.storage.given_up = StorageError(reason)
        files.require_writable(self.folder.path)
        if card is None:
            raise self.storage.given_up
        self.plan.sick.take_off(card, f"cannot use the storage: {reason}")
        self.say_barred()

    def _could_not_begin(self, trial_id: str, card: Card | None, kind: str, message: str, trace: str) -> None:
        """A trial could not begin on a machine. It is tried on another one, and loses no retry by it; if there is none,
        or this happened on IN_A_ROW of them, the attempt has failed."""
        mine, sick = self._trial_of[trial_id], self.plan.sick
        if card is not None and not sick.is_last(card.node):
            sick.died(card, mine, reason=f"{kind}: {message}")
            if not sick.is_guilty(mine) and sick.may_go_elsewhere(mine):
                self._take_back(trial_id)
                self.display.note(f"{mine} cannot begin on {card.machine} ({kind}: {message}): another machine gets it")
                self.say_barred()
                return
        commit_failure(TrialFolder(self.folder.trial_folder(mine)), kind, message, trace=trace)

    @_patient
    def died_early(self, trial_id: str, card: Card | None, reason: str) -> None:
        """The process of a trial died before it began, on a machine that is alive: others of the sweep go elsewhere."""
        mine = self._trial_of.get(trial_id)
        if mine is not None and card is not None and not self.plan.sick.is_last(card.node):
            self.plan.sick.died(card, mine, reason=reason)

    def died(self, trial_id: str, said: str) -> None:
        """The process of a trial has died, and Ray ``said`` this of it."""
        mine, node = self._trial_of.get(trial_id), self.places.where(trial_id)
        others = self.places.running() - (node is not None)
        beside, here = self.places.running(node) - 1 if node else others, node == this_machine()["node"]
        if mine and self.memory.died(mine, said, here=here, beside=beside, running=others):
            self._excused.add(mine)

    @_patient
    def refuses(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial must not begin where Tune has put it: the machine is barred by now, or memory is short.

        Then it is taken back, and its process must not go on.
        """
        begins = trial_id in self.places.waiting and trial_id in self._trial_of
        allowed = result.get("node") not in self.plan.sick.barred and not self.memory.refuses(self.places.running())
        if not begins or "alive" not in result or allowed:
            return False
        self._take_back(trial_id)
        return True

    def say_barred(self) -> None:
        """Say once of each machine that it gets no more trials."""
        for node in self.plan.sick.barred:
            if node not in self._said:
                self._said.add(node)
                self.places.count_again()
                self.display.note(self.plan.sick.why(node))

    def _stop_without_machines(self) -> None:
        """Stop the plan: only barred machines have room for a trial."""
        if self.plan.stopping:
            return
        self.plan.stop()
        self.storage.ended_by = self.storage.ended_by or self.storage.given_up
        self.display.note(
            "no machine is left that may run trials: those that run go on to their end, nothing is lost, and the same "
            "command resumes; if the machines are well, look for the reason in what the trials have in common (one of "
            "them on a CPU, with device: cpu, names it)"
        )

    @_patient
    def stuck(self) -> bool:
        """Whether no trial runs, and no machine can take those that wait; then these are taken back.

        Trials that avoid the machine on which their device died may use it from now on. If only barred machines have
        room, the plan stops. Otherwise the plan goes on with another Tuner (``again``).
        """
        waiting, sick = self.places.waiting, self.plan.sick
        self.places.say_waiting()
        if not waiting or len(waiting) < len(self._trial_of):
            return False
        if time.monotonic() - self._looked < COUNT_EVERY_S:
            return False
        self._looked = time.monotonic()
        if not self.places.too_much():
            if not sick.known or any(self.places.may_come(trial_id) for trial_id in waiting):
                return False
            if all(sick.barred.keys() >= set(message["avoid"]) for message in waiting.values()):
                self._stop_without_machines()
        for trial_id, message in list(waiting.items()):
            sick.excuse(message["trial"], *shared_by(parse(message["config"])))
            self._take_back(trial_id)
        self.again = not self.plan.over
        return True

    @_patient
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record and show how an attempt ended; write the tables if that is due."""
        mine = self._trial_of.pop(trial_id, None)
        card = self._card_of.pop(trial_id, None)
        self._heard.pop(trial_id, None)
        self.storage.news.gone(trial_id)
        self.places.gone(trial_id)
        if mine is None:
            return
        self._stop_if_asked()
        ended = self.plan.ended(mine, card, excused=mine in self._excused)
        self._excused.discard(mine)
        self._show(ended)
        self.say_barred()
        self._tables.write_if_due(self.plan.running)

    def _show(self, endings: list[Ending]) -> None:
        self._endings.show(endings)
        self.callbacks.ended(endings[0])

    @_patient
    def silent(self) -> list[str]:
        """Tune's ids of running trials without a sign of life for ``silence_limit_s``; commits that they failed."""
        limit = self.plan.space.silence_limit_s
        if waited_s := self.storage.newly_waited_s() + self._tables.newly_took_s():
            self._heard = {trial_id: heard + waited_s for trial_id, heard in self._heard.items()}
        now = time.monotonic()
        found = [trial_id for trial_id, heard in self._heard.items() if limit is not None and now - heard > limit]
        for trial_id in found:
            silent_s = now - self._heard.pop(trial_id)
            if trial_id in self._trial_of:  # else its process has given the trial back, and has not ended
                self.plan.give_up_on(self._trial_of[trial_id], silent_s)
        return found

    def _stop_if_asked(self) -> None:
        """Stop the plan if the stop file exists."""
        if not self.plan.stopping and self.stop.there():
            self.plan.stop()
            self.display.note("asked to stop: running trials commit and end")

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        pass
