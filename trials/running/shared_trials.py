"""Shared stages: the network a trial starts from, computed once however many trials want it, by whoever comes first."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trials.errors import OUT_OF_MEMORY, DamagedFile, Preempted, Superseded
from trials.storage.lease import Lease
from trials.storage.rows import Rows
from trials.storage.trial_folder import State, TrialFolder

SHARED_POLL_S, SHARED_POLL_STORE_S = 0.2, 2.0
"""How often a waiting trial looks whether its source is there, on a path and in an object store."""

MOST_FAILURES = 3
"""A shared stage that has failed this often is not tried again by every trial that wants it."""


def obtain(
    folder: TrialFolder, compute: Callable[[], State], should_stop: Callable[[], bool]
) -> tuple[dict[str, Any], Rows]:
    """The checkpoint and the rows of a shared stage.

    If they are not there, ``compute`` makes them, under the folder's lease; meanwhile the others wait. Whoever finds
    the owner dead takes over and continues from its last commit.

    Raises:
        Preempted: asked to stop while waiting or computing.
        RuntimeError: the stage failed; MemoryError: for want of memory.
    """
    lease = Lease(folder.path)
    while True:
        state = _state(folder)
        if state is not None and state.status == "complete":
            try:
                return folder.checkpoint(state.commits[-1]), folder.rows(state.commits[-1])
            except DamagedFile:
                pass  # computing it again repairs what can be repaired first
        if state is not None and state.failures >= MOST_FAILURES:
            raise RuntimeError(
                f"{folder.path.name}, which it starts from, failed {state.failures} times: {state.error}"
            )
        if lease.acquire():
            try:
                with lease:
                    state = compute()
            except Superseded:
                continue  # whoever took the stage over computes it now
            if state.status == "failed":
                kind = MemoryError if (state.error or {}).get("type") == OUT_OF_MEMORY else RuntimeError
                raise kind(f"{folder.path.name}, where it starts, failed: {state.error}")
            if state.status == "preempted":
                raise Preempted
        elif should_stop():
            raise Preempted
        else:
            time.sleep(SHARED_POLL_S if isinstance(folder.path, Path) else SHARED_POLL_STORE_S)


def _state(folder: TrialFolder) -> State | None:
    try:
        return folder.state()
    except DamagedFile:
        return None
