"""Failures that the driver commits for a trial: its process or its device keeps dying, it is silent, or unreadable."""

from __future__ import annotations

from contextlib import suppress

from sweeper.folder.sweep_folder import Record
from sweeper.search.sick_machines import IN_A_ROW, SickMachines
from sweeper.space.space import Space
from trials.errors import DEAD_DEVICE, DamagedFile, UserError
from trials.running.shared_trials import MOST_FAILURES
from trials.storage.place import Place
from trials.storage.trial_folder import State, TrialFolder

DEATHS = 3
"""A trial counts as failed if this many attempts in a row die before they begin, or end without status and commit."""


class Deaths:
    """Counts each trial's attempts that died in a row.

    Only attempts under this driver count: a trial is not to blame for the death of its driver.
    """

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}

    def too_many(self, record: Record, state: State | None, *, stopping: bool) -> bool:
        """Whether a trial has died DEATHS times in a row. Call at the end of every attempt, with its new state."""
        if state is not None and state.finished:
            return False
        before = record.state or State()
        now = state or State()
        spoke = now.status != "running" and now.attempt != before.attempt
        if stopping or spoke or now.commits != before.commits:
            self._in_a_row.pop(record.id, None)
            return False
        self._in_a_row[record.id] = self._in_a_row.get(record.id, 0) + 1
        return self._in_a_row[record.id] >= DEATHS


def lost_device(state: State | None, before: State | None = None) -> dict[str, str] | None:
    """The error of an attempt that ended because its device died; None if it ended otherwise.

    ``before``: the state before the attempt; None is returned if there was none since.
    """
    if state is None or state.status != "failed" or state.error is None:
        return None
    if before is not None and state.attempt == before.attempt:
        return None
    return state.error if state.error["type"] == DEAD_DEVICE else None


def fail_guilty(record: Record, error: dict[str, str], sick: SickMachines, space: Space, stages: Place) -> State | None:
    """Commit the failure of the trial, or of the shared trial in it, that has killed IN_A_ROW devices.

    Returns the new state of the record's trial; None if that is as it was. A shared trial that another process
    computes now is left alone.
    """
    culprit = error.get("culprit", "")
    machines = ", ".join(sick.hosts(culprit or record.id)) or "unknown machines"
    message = (
        f"{error['message']}; this was the {IN_A_ROW}rd time (on {machines}), so the trial is taken to be the reason"
    )
    if not culprit:
        return commit_failure(record.folder, DEAD_DEVICE, message, space.retries + 1, error["traceback"])
    shared = TrialFolder(stages / culprit)
    with suppress(DamagedFile):
        state = shared.state()
        if state is not None and state.status == "failed":
            commit_failure(shared, DEAD_DEVICE, message, max(MOST_FAILURES, state.failures), error["traceback"])
    return None


def commit_failure(folder: TrialFolder, kind: str, message: str, failures: int | None = None, trace: str = "") -> State:
    """Commit a failure in a new attempt, which supersedes the running one; by default it adds 1 to the failures."""
    attempt, _ = folder.begin()
    failures = attempt.state.failures + 1 if failures is None else failures
    attempt.end("failed", error={"type": kind, "message": message, "traceback": trace}, failures=failures)
    return attempt.state


def commit_unreadable(record: Record, error: UserError) -> None:
    """Commit that an attempt at a trial failed because this version cannot read its config."""
    message = (
        f"{record.folder.path / 'config.json'} of trial {record.id} cannot be read by this version ({error}): "
        "correct the file or resume with the version that wrote it, and add --retry-failed"
    )
    commit_failure(record.folder, type(error).__name__, message)
