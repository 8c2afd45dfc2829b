"""Small sweeps whose best samples are confirmed, with trials that are ended instead of being run."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from sweeper.folder.confirmations import confirmation_of
from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.results.stored_space import stored_space
from sweeper.results.summary import summarise
from sweeper.results.tables import load
from sweeper.search.cells.confirmed_study import ConfirmedStudy
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.sweeps import begun, fail, finish, landscape, searching
from trials.storage.trial_folder import TrialFolder

CONFIRM = {"seed": [1, 2, 3]}


def space_with(samples: int = 4, sampler: str = "tpe", confirm: Any = CONFIRM, **fields: Any) -> Space:
    return searching(sampler, samples, **{"confirm": confirm, **fields})


def accuracy(config: dict[str, Any]) -> float:
    """Higher where the search wants it, and so much lower for each fresh seed that a mixed mean shows."""
    return landscape(config) - 0.01 * config["seed"]


def written(space: Space, path: Path) -> SweepFolder:
    """The folder of a sweep whose sweep.yaml describes ``space`` now."""
    folder = SweepFolder(path)
    folder.append({"space": space.document()})
    return folder


def searched(folder: SweepFolder) -> list[Record]:
    return [r for r in folder.records() if any(confirmation_of(sample) is None for sample in r.samples)]


def confirming(folder: SweepFolder) -> list[Record]:
    return [r for r in folder.records() if any(confirmation_of(sample) is not None for sample in r.samples)]


def cell_of(record: Record) -> str:
    return record.samples[0].cell


def best_of(folder: SweepFolder, cell: str) -> Record:
    """The best searched trial of a cell, worked out from the folder alone."""
    complete = [r for r in searched(folder) if cell_of(r) == cell and r.state and r.state.status == "complete"]
    return max(complete, key=lambda r: r.state.result["val_accuracy"] if r.state else 0.0)


def study_of(plan: Plan, cell: str) -> ConfirmedStudy:
    study = plan._searches[cell]
    assert isinstance(study, ConfirmedStudy)
    return study


def figures(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of the summary by density asked."""
    sweep = load(path)
    space = stored_space(sweep)
    assert space is not None
    first = space.objectives[0]
    table = summarise(
        sweep,
        objective=first.column,
        direction=first.direction,
        grid=space.paths,
        search=space.search,
        constraints=space.constraints,
        confirm=space.confirm,
    )
    return {f"density={row['config.density']:g}": row for row in table.to_dict("records")}


class Storm:
    """Runs a sweep with trials that fail and end in any order, and drivers that die at any moment."""

    def __init__(self, space: Space, path: Path, seed: int, fails: float = 0.0, dies: float = 0.0, most: int = 3):
        self.space, self.path, self.draw = space, path, random.Random(seed)
        self.fails, self.dies, self.most = fails, dies, most

    def run(self) -> Plan:
        plan = begun(self.space, self.path)
        for _ in range(2000):
            if self.draw.random() < self.dies:
                plan = begun(self.space, self.path)  # what ran is lost, but for what it had committed
            if len(plan.running) < self.most and plan.next() is not None and self.draw.random() < 0.5:
                continue
            if plan.running:
                self._end(plan, self.draw.choice(sorted(plan.running)))
            elif plan.next() is None and not plan.running:
                assert plan.complete
                return plan
        raise AssertionError("the sweep does not end")

    def _end(self, plan: Plan, trial_id: str) -> None:
        if self._fails(trial_id):
            fail(plan, trial_id)
        else:
            finish(plan, trial_id, accuracy)
        if self.draw.random() < self.dies:
            return  # the driver dies before it hears of it; the next one finds it in the folder
        plan.ended(trial_id)

    def _fails(self, trial_id: str) -> bool:
        """By trial, so that the same ones fail however the sweep is interrupted."""
        return random.Random(trial_id).random() < self.fails


def break_down(folder: SweepFolder, trial_id: str) -> None:
    """Take a finished trial's result away, as if its files had been damaged."""
    (TrialFolder(folder.trial_folder(trial_id)).path / "state.json").unlink()
