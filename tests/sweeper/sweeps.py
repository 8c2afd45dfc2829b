"""Small spaces, and trials that are ended with a given outcome instead of being run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.folder.sweep_folder import Record, SweepFolder
from sweeper.search.cells.study import CellStudy
from sweeper.search.plan import Plan
from sweeper.search.warm_start import commit_warm_start, warm_start
from sweeper.space.checks import check_space
from sweeper.space.load import from_document
from sweeper.space.space import Space
from trials.storage.place import Place
from trials.storage.trial_folder import TrialFolder

SAMPLERS = ("random", "tpe")
ONE_SHOT: dict[str, Any] = {
    "method": "one_shot",
    "dataset": "digits",
    "model": "tiny",
    "pretrain": {"epochs": 2},
    "finetune": {"epochs": 1},
}

Value = Callable[[dict[str, Any]], float | None]


def make_space(**fields: Any) -> Space:
    content = {"name": "small", "trial": ONE_SHOT, "grid": {"density": [0.5, 0.2]}, **fields}
    space = from_document(content)
    check_space(space)
    return space


def searching(sampler: str, samples: int, **fields: Any) -> Space:
    search = {"finetune.lr": {"loguniform": [1e-3, 1.0]}, "finetune.momentum": {"uniform": [0.0, 0.95]}}
    return make_space(search=search, sampler=sampler, samples=samples, **fields)


def begun(space: Space, path: Path) -> Plan:
    """The plan of a new driver, with the records in the folder."""
    return Plan(space, SweepFolder(path))


def run_space(space: Space, path: Place, **options: Any) -> SweepFolder:
    """Run a whole sweep as a driver does, with a warm start where the space has one."""
    folder = SweepFolder(path)
    folder.append({"space": space.document()})
    warm = warm_start(space, folder)
    commit_warm_start(folder, warm)
    run_out(Plan(space, folder, warm), **options)
    return folder


def landscape(config: dict[str, Any]) -> float:
    """An objective with a single maximum."""
    return 1.0 - abs(config["finetune"]["lr"] - 0.1) - abs(config["finetune"]["momentum"] - 0.5)


def finish(plan: Plan, trial_id: str, value: Value = landscape) -> None:
    """Complete a trial as its worker would, with ``value`` of its config as the objective."""
    (record,) = (record for record in plan.folder.records() if record.id == trial_id)
    attempt, _ = TrialFolder(plan.folder.trial_folder(trial_id)).begin()
    reached = value(record.content)
    attempt.end("complete", result={} if reached is None else {"val_accuracy": reached})


def fail(plan: Plan, trial_id: str) -> None:
    attempt, _ = TrialFolder(plan.folder.trial_folder(trial_id)).begin()
    error = {"type": "NonFiniteLoss", "message": "the loss is nan", "traceback": ""}
    attempt.end("failed", error=error, failures=attempt.state.failures + 1)


def asked(folder: SweepFolder) -> dict[tuple[str, int], dict[str, Any]]:
    """The searched values of every sample, by cell and number."""
    samples = [sample for record in folder.records() for sample in record.samples]
    found = {(sample.cell, sample.number): sample.params for sample in samples}
    assert len(found) == len(samples)
    return found


def record_of(folder: SweepFolder, trial_id: str) -> Record:
    (record,) = (record for record in folder.records() if record.id == trial_id)
    return record


def run_out(plan: Plan, value: Value = landscape) -> list[str]:
    """Run all remaining trials, one at a time; return their ids."""
    ran = []
    while (assignment := plan.next()) is not None:
        finish(plan, assignment.trial_id, value)
        plan.ended(assignment.trial_id)
        ran.append(assignment.trial_id)
    assert plan.complete
    return ran


def finished(plan: Plan) -> int:
    """How many trials in the plan's folder are finished."""
    return sum(record.finished for record in plan.folder.records())


def trials_of(study: CellStudy) -> list[tuple[Any, ...]]:
    """Everything that a study holds of its trials."""
    told = study.space.sampler.remembered
    return [(t.state, t.params, t.values, told(t.system_attrs), t.intermediate_values) for t in study.study.trials]
