"""A minimal trial that counts, to be killed, damaged and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.trials.folders import state_of
from trials.storage.rows import Row, Rows
from trials.storage.trial_folder import TrialFolder

COMMITS = 3
WRITES = 1 + COMMITS * 4  # begin; then checkpoint, two row files and state per commit


def row(i: int) -> Row:
    return {"epoch": i, "loss": 1 / i, "note": None if i == 1 else f"row {i}", "stage": "train"}


def rows_up_to(i: int) -> Rows:
    return {
        "epochs": [row(k) for k in range(1, i + 1)],
        "layers": [{"layer": "conv", "kept": 100 // k} for k in range(1, i + 1)],
        "allocations": [],
    }


def count(path: Path, last: int = COMMITS) -> None:
    """Run the minimal trial: each commit adds a row; it resumes from its checkpoint; a finished one does nothing."""
    folder = TrialFolder(path)
    folder.verify(checkpoint=True)
    state = folder.state()
    if state is not None and state.finished:
        return
    attempt, checkpoint = folder.begin(host="here")
    done = int(checkpoint["i"]) if checkpoint else 0
    rows: Rows = json.loads(checkpoint["rows"]) if checkpoint else {"epochs": [], "layers": [], "allocations": []}
    assert rows == rows_up_to(done)
    for i in range(done + 1, last + 1):
        rows["epochs"].append(row(i))
        rows["layers"].append({"layer": "conv", "kept": 100 // i})
        status = {"status": "complete", "result": {"i": i}} if i == COMMITS else {}
        attempt.commit(checkpoint={"i": torch.tensor(i)}, rows=rows, progress={"i": i}, seconds=float(i), **status)
    if last < COMMITS:
        attempt.end("preempted")


def committed(path: Path) -> int:
    """The last committed count; asserts that checkpoint, rows and state agree."""
    folder = TrialFolder(path)
    state = folder.state()
    if state is None or not state.commits:
        return 0
    i = int(folder.checkpoint(state.commits[-1])["i"])
    expected = {table: content for table, content in rows_up_to(i).items() if content}
    assert folder.rows(state.commits[-1]) == expected
    assert state.progress == {"i": i}
    return i


def assert_complete(path: Path) -> None:
    assert committed(path) == COMMITS
    state = state_of(path)
    assert (state.status, state.finished, state.result) == ("complete", True, {"i": COMMITS})


def last_files(path: Path) -> tuple[Path, list[Path]]:
    state = state_of(path)
    commit = state.commits[-1]
    assert commit.checkpoint is not None
    return path / "checkpoint" / commit.checkpoint, [path / "rows" / name for name in commit.rows.values()]
