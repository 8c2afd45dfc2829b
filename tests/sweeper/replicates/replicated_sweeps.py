"""Small sweeps whose points run with several seeds, with trials that are ended instead of being run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from sweeper.folder.replicates import replicate_of
from sweeper.folder.sweep_folder import Record, Sample, SweepFolder
from sweeper.search.cells.confirmed_study import ConfirmedStudy
from sweeper.search.cells.replicated_study import ReplicatedStudy
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.sweeps import begun, fail, finish, landscape, searching, trials_of

REPLICATES: dict[str, Any] = {"values": {"seed": [0, 1, 2]}}

NUMERIC = {"finetune.lr": {"loguniform": [1e-3, 1.0]}, "finetune.momentum": {"uniform": [0.0, 0.95]}}


def space_with(
    samples: int = 4, sampler: Any = "tpe", replicates: Mapping[str, Any] | None = None, **fields: Any
) -> Space:
    return searching(sampler, samples, **{"replicates": {**REPLICATES, **(replicates or {})}, **fields})


def noisy(spread: float = 0.02) -> Callable[[dict[str, Any]], float]:
    """The landscape with noise that depends on the config alone."""

    def accuracy(config: dict[str, Any]) -> float:
        draw = random.Random(repr((config["seed"], config["density"], config["finetune"]["lr"])))
        return landscape(config) + spread * draw.gauss(0, 1)

    return accuracy


def replicated(plan: Plan, cell: str) -> ReplicatedStudy:
    study = plan._searches[cell]
    found = study.searched if isinstance(study, ConfirmedStudy) else study
    assert isinstance(found, ReplicatedStudy)
    return found


def by_point(folder: SweepFolder) -> dict[tuple[str, int], dict[int, Record]]:
    """By cell and number of a point, the records of its replicates by seed."""
    found: dict[tuple[str, int], dict[int, Record]] = {}
    for record in folder.records():
        for sample in record.samples:
            if (which := replicate_of(sample)) is not None:
                found.setdefault((sample.cell, sample.number), {})[which.values["seed"]] = record
    return found


def told(plan: Plan, cell: str) -> list[tuple[TrialState, Any, Any]]:
    """State, values and parameters of each trial of a cell's study, as its sampler sees them."""
    study = replicated(plan, cell)
    study.points  # noqa: B018  told what was replayed
    return [(t.state, t.values, t.params) for t in study.searched.study.trials]


def everything_told(plan: Plan) -> dict[str, list[tuple[Any, ...]]]:
    """All that the studies of all cells hold of their trials."""
    found = {}
    for cell in plan.cells:
        study = replicated(plan, cell.key)
        study.points  # noqa: B018
        found[cell.key] = trials_of(study.searched)
    return found


def samples_of(folder: SweepFolder) -> dict[tuple[Any, ...], Sample]:
    """Every sample, by cell, number and replicate."""
    return {
        (sample.cell, sample.number, repr(which.values if (which := replicate_of(sample)) else None)): sample
        for record in folder.records()
        for sample in record.samples
    }


class Storm:
    """Runs a sweep with several trials at once, in random order, with failures and drivers that die.

    Attributes:
        ran: ids of the trials that were run to an end, in that order.
    """

    def __init__(self, space: Space, path: Path, seed: int, value: Callable[[dict[str, Any]], float | None]) -> None:
        self.space, self.path, self.value = space, path, value
        self.random = random.Random(seed)
        self.plan = begun(space, path)
        self.ran: list[str] = []

    def run(self, *, deaths: float = 0.2, failures: float = 0.0, wide: int = 4) -> SweepFolder:
        """Run to the end; ``wide`` trials at once."""
        running: list[str] = []
        while not self.plan.over:
            while len(running) < wide and (assignment := self.plan.next()) is not None:
                running.append(assignment.trial_id)
            if not running:
                assert self.plan.over
                break
            mine = running.pop(self.random.randrange(len(running)))
            (fail if self.random.random() < failures else lambda plan, t: finish(plan, t, self.value))(self.plan, mine)
            if self.random.random() < deaths:
                self.plan, running = begun(self.space, self.path), []
                continue
            self.plan.ended(mine)
            self.ran.append(mine)
            self.check()
        return self.plan.folder

    def check(self) -> None:
        """What a new driver would know is what this one knows, with the same next point of every cell."""
        other = begun(self.space, self.path)
        assert everything_told(other) == everything_told(self.plan)
        assert {key: search.wants for key, search in other._searches.items()} == {
            key: search.wants for key, search in self.plan._searches.items()
        }
