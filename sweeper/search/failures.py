"""Failures that the driver commits for a trial: its process keeps dying, is silent, or could not read its config."""

from __future__ import annotations

from sweeper.folder.sweep_folder import Record
from trials.errors import UserError
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


def commit_failure(folder: TrialFolder, kind: str, message: str, failures: int | None = None) -> State:
    """Commit a failure in a new attempt, which supersedes the running one; by default it adds 1 to the failures."""
    attempt, _ = folder.begin()
    failures = attempt.state.failures + 1 if failures is None else failures
    attempt.end("failed", error={"type": kind, "message": message, "traceback": ""}, failures=failures)
    return attempt.state


def commit_unreadable(record: Record, error: UserError) -> None:
    """Commit that an attempt at a trial failed because this version cannot read its config."""
    message = (
        f"{record.folder.path / 'config.json'} of trial {record.id} cannot be read by this version ({error}): "
        "correct the file or resume with the version that wrote it, and add --retry-failed"
    )
    commit_failure(record.folder, type(error).__name__, message)
