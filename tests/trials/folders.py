"""Read a trial's folder, and compare it with another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trials.storage.rows import Row, Rows
from trials.storage.trial_folder import State, TrialFolder


def state_of(path: Path) -> State:
    """The state of a folder in which a trial or a shared trial has begun."""
    state = TrialFolder(path).state()
    assert state is not None
    return state


def the_stage(storage: Path) -> Path:
    """The folder of the only shared trial."""
    (stage,) = (storage / "stages").iterdir()
    return stage


def rows_of(path: Path) -> Rows:
    """The rows of the folder's last commit."""
    return TrialFolder(path).rows(state_of(path).commits[-1])


def checkpoint_of(path: Path) -> dict[str, Any]:
    return TrialFolder(path).checkpoint(state_of(path).commits[-1])


def timeless(rows: Rows) -> Rows:
    return {table: [_without_seconds(row) for row in content] for table, content in rows.items()}


def _without_seconds(row: Row) -> Row:
    return {key: value for key, value in row.items() if not key.startswith("seconds")}


def same(a: object, b: object) -> bool:
    """Whether two nested values are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def assert_same_outcome(path: Path, undisturbed: Path) -> None:
    """Assert that a trial is complete and has the undisturbed one's rows (except seconds), result and network bits."""
    state, reference = state_of(path), state_of(undisturbed)
    assert state.status == reference.status == "complete"
    rows = rows_of(path)
    assert timeless(rows) == timeless(rows_of(undisturbed))
    assert_rows_once(rows)
    assert state.result == reference.result
    assert same(checkpoint_of(path)["net"], checkpoint_of(undisturbed)["net"])


def assert_rows_once(rows: Rows) -> None:
    unique = {"epochs": ("stage", "level", "epoch"), "layers": ("stage", "level", "layer")}
    if "allocations" in rows:
        unique["allocations"] = ("step", "episode", "layer")
    for table, key in unique.items():
        keys = [tuple(row[name] for name in key) for row in rows[table]]
        assert len(keys) == len(set(keys))
        assert keys
