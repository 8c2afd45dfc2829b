"""Simulated trials that a pruner may stop early, and drivers that die while they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sweeper.folder.sweep_folder import SweepFolder, is_stopped
from sweeper.results.tables import load
from sweeper.search.plan import Plan
from sweeper.space.space import Space
from tests.sweeper.sweeps import ONE_SHOT, begun, make_space
from trials.storage.trial_folder import TrialFolder

EPOCHS = 9
TRIAL = {**ONE_SHOT, "finetune": {"epochs": EPOCHS}}
SEARCH: dict[str, Any] = {"finetune.lr": {"loguniform": [1e-3, 1.0]}, "finetune.momentum": {"uniform": [0.0, 0.95]}}

KINDS: dict[str, Any] = {
    "halving": {"name": "halving", "reduction_factor": 2},
    "hyperband": {"name": "hyperband", "reduction_factor": 2},
    "median": {"name": "median", "n_startup_trials": 2},
    "percentile": {"name": "percentile", "percentile": 30.0, "n_startup_trials": 1, "n_warmup_steps": 2},
    "patient": {"name": "patient", "patience": 1, "wrapped": {"name": "median", "n_startup_trials": 1}},
    "patient alone": {"name": "patient", "patience": 5},
}


def space_of(pruner: Any, samples: int = 8, **fields: Any) -> Space:
    return make_space(**{"trial": TRIAL, "search": SEARCH, "samples": samples, "pruner": pruner, **fields})


def accuracy(config: dict[str, Any], step: int) -> float:
    """A learning curve that rises and then falls; higher for higher densities and near a learning rate of 0.1."""
    lr = config["finetune"]["lr"]
    off = abs(lr - 0.1) + abs(config["finetune"]["momentum"] - 0.5)
    return config["density"] - 0.1 * off + 0.02 * step * (1 - off) - 0.002 * step * step


Curve = Callable[[dict[str, Any], int], float]


def train(plan: Plan, trial_id: str, value: Curve = accuracy) -> Iterator[str]:
    """Act as a worker that commits every other epoch; yields at each point where it or the driver may die."""
    folder = TrialFolder(plan.folder.trial_folder(trial_id))
    config = json.loads((folder.path / "config.json").read_text())["config"]
    attempt, checkpoint = folder.begin()
    rows = json.loads(checkpoint.get("rows", "{}")).get("epochs", [])

    def commit(**fields: Any) -> None:
        attempt.commit(checkpoint={}, rows={"epochs": rows}, progress={}, seconds=0.0, **fields)

    for step in range(len(rows) + 1, EPOCHS + 1):
        figures = {"val_accuracy": value(config, step), "density": config["density"]}
        rows.append({"stage": "finetune", "level": 0, "epoch": step, "stage_id": None, **figures})
        yield "trained"
        if step < EPOCHS:
            plan.judge(trial_id, step, figures["val_accuracy"], rows[-1])
            stop = is_stopped(folder.path, step)
            yield "judged"
            if stop:
                commit(status="pruned", result={**figures, "epochs": step, "pruned_at": step})
                yield "pruned"
                return
        if step % 2 == 0:
            commit()
            yield "committed"
    commit(status="complete", result={**figures, "epochs": EPOCHS})
    yield "complete"


class Drivers:
    """Runs a space to its end, one trial at a time; a new driver and a new worker after the steps given."""

    def __init__(self, space: Space, path: Path, value: Curve = accuracy) -> None:
        self.space, self.path, self.value = space, path, value
        self.plan = begun(space, path)
        self.steps = 0

    def go(self, killed_after: range = range(0)) -> Drivers:
        while (assignment := self.plan.next()) is not None:
            if self._train(assignment.trial_id, killed_after):
                self.plan.ended(assignment.trial_id)
            else:
                self.plan = begun(self.space, self.path)
        assert self.plan.complete
        return self

    def _train(self, trial_id: str, killed_after: range) -> bool:
        for _ in train(self.plan, trial_id, self.value):
            self.steps += 1
            if self.steps in killed_after:
                return False
        return True

    def came_to(self) -> dict[str, Any]:
        """The final state, samples and rows of every trial."""
        rows = load(self.path).epochs[["trial", "stage", "epoch", "val_accuracy"]].to_dict("records")
        return {
            record.id: (
                record.state.status if record.state else None,
                record.state.result if record.state else None,
                record.samples,
                [row for row in rows if row["trial"] == record.id],
            )
            for record in SweepFolder(self.path).records()
        }
