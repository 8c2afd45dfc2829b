"""Sweeps of synthetic finished trials, which are committed as workers commit theirs, and what is read of them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import sweeper
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.sweeps import make_space
from trials.storage.place import Place
from trials.storage.row_schema import table_as_rows
from trials.storage.trial_folder import TrialFolder

FRAMES = ("trials", "epochs", "layers", "allocations", "lineage")


def commit_finished(folder: Place, number: int) -> None:
    """Complete a trial with rows, of which every third trial's have other columns and types, and a checkpoint."""
    attempt, _ = TrialFolder(folder).begin(host="here", device="cpu")
    value = number / 100
    epoch: dict[str, Any] = {"stage": "prune", "level": 0, "epoch": 1, "val_accuracy": value, "stage_id": None}
    if number % 3 == 0:
        epoch |= {"own": number, "warnings": ["chance_level"]}
    elif number % 3 == 1:
        epoch |= {"own": f"text {number}", "warnings": []}
    layers = [
        {"stage": "prune", "level": 0, "layer": f"l{i}", "kept": i, "total": 9, "stage_id": None} for i in range(2)
    ]
    rows = {"epochs": [{**epoch, "epoch": 0}, epoch], "layers": layers, "allocations": []}
    checkpoint = {"net": {"w": torch.full((3,), float(number))}, "position": {"stage": 1}}
    attempt.commit(
        checkpoint=checkpoint, rows=rows, progress={}, seconds=1.0, status="complete", result={"val_accuracy": value}
    )


def sweep_of(path: Place, trials: int, space: Space | None = None) -> SweepFolder:
    """A complete sweep of so many trials."""
    space = space or make_space(grid={"density": [0.5], "seed": list(range(trials))})
    folder = SweepFolder(path)
    folder.append({"space": space.document()})
    finish_all(Plan(space, folder))
    return folder


def finish_all(plan: Plan, number: int = 0) -> None:
    """Complete all trials that a plan has left; ``number``: of the first one."""
    while (assignment := plan.next()) is not None:
        commit_finished(plan.folder.trial_folder(assignment.trial_id), number)
        plan.ended(assignment.trial_id)
        number += 1
    assert plan.complete


def tables_of(path: Place) -> dict[str, pd.DataFrame]:
    """All tables of a sweep, read without a cache of another look."""
    found = sweeper.load(path)
    return {frame: getattr(found, frame) for frame in FRAMES}


def assert_equal(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    for frame in FRAMES:
        pd.testing.assert_frame_equal(one[frame], other[frame], check_exact=True)


def records_of(folder: SweepFolder) -> list[Any]:
    """What records say, without where they lie."""
    return [(r.id, r.content, r.samples, r.state, r.stored.revisions) for r in folder.records()]


def networks_of(folder: SweepFolder) -> dict[str, list[float]]:
    """The network of each trial that has a checkpoint."""
    found = {}
    for record in folder.records():
        for commit in record.state.commits if record.state else ():
            if commit.checkpoint is not None:
                found[record.id] = record.folder.checkpoint(commit)["net"]["w"].tolist()
    return found


def inodes(path: Path) -> int:
    """Files and folders of a sweep's trials, packed or not."""
    return sum(1 for kind in ("trials", "packed") for _ in (path / kind).rglob("*"))


def content_of(folder: SweepFolder) -> dict[str, Any]:
    """All that is committed of each trial, without pandas or torch: config, samples, state, rows and checkpoint."""
    found = {}
    for record in folder.records():
        commits = record.state.commits if record.state else ()
        rows = {
            table: table_as_rows(content)
            for commit in commits
            for table in commit.rows
            if (content := record.folder.table(commit, table)) is not None
        }
        checkpoints = [record.folder.read("checkpoint", one.checkpoint) for one in commits if one.checkpoint]
        state = None if record.state is None else asdict(record.state)
        for commit in state["commits"] if state else ():
            commit["rows"] = sorted(commit["rows"])  # a row file that is written anew has another name
        assert record.id not in found
        found[record.id] = (record.content, record.samples, state, rows, checkpoints)
    return found


class Killed(BaseException):
    """The process is killed at this call."""


CHANGING = {
    os: ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync"),
    io: ("open",),
}


class Killer:
    """Kills the process before its ``at``-th call that changes the file system: none has an effect from there on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.at, self.calls = at, 0
        for module, names in CHANGING.items():
            for name in names:
                monkeypatch.setattr(module, name, self._instead_of(getattr(module, name)))

    def _instead_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            reads = function is io_open and "b" in str(arguments[1:2]) and "r" in str(arguments[1:2])
            if not reads:
                self.calls += 1
                if self.calls >= self.at:
                    raise Killed
            return function(*arguments, **options)

        return call


io_open = io.open
