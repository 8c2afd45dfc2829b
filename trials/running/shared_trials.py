"""Shared trials: a dense training that several trials start from; the first to need it computes it under a lease."""

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
"""Seconds between a waiting trial's checks whether its shared trial is complete, on a path and in an object store."""

MOST_FAILURES = 3
"""After this many failures a shared trial is not attempted again; trials that need it fail at once."""


def obtain(
    folder: TrialFolder, compute: Callable[[], State], should_stop: Callable[[], bool]
) -> tuple[dict[str, Any], Rows]:
    """Return the checkpoint and the rows of a shared trial, computing it first if needed.

    One process calls ``compute`` under the folder's lease while the others wait. If the lease's owner dies, another
    process takes over and continues from the last commit.

    Raises:
        Preempted: asked to stop while waiting or computing.
        RuntimeError: the shared trial failed, now or ``MOST_FAILURES`` times before.
        MemoryError: it failed now because memory ran out.
    """
    lease = Lease(folder.path)
    while True:
        state = _state(folder)
        if state is not None and state.status == "complete":
            try:
                return folder.checkpoint(state.commits[-1]), folder.rows(state.commits[-1])
            except DamagedFile:
                pass  # computing it again starts with a repair
        if state is not None and state.failures >= MOST_FAILURES:
            raise RuntimeError(f"shared trial {folder.path.name} failed {state.failures} times: {state.error}")
        if lease.acquire():
            try:
                with lease:
                    state = compute()
            except Superseded:
                continue  # another process has taken the shared trial over and computes it now
            if state.status == "failed":
                kind = MemoryError if (state.error or {}).get("type") == OUT_OF_MEMORY else RuntimeError
                raise kind(f"shared trial {folder.path.name} failed: {state.error}")
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
