"""A storage of small real sweeps that together hold every kind of file, and a driver that resumes them without Ray."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeper.cli import COMPLETE, FAILURES, STOPPED, main
from sweeper.execution import concluding, on_ray
from sweeper.execution.stop_file import StopFile
from sweeper.execution.told_rows import ToldRows
from sweeper.execution.trackers_of import tracker_places
from sweeper.folder.sweep_folder import SweepFolder, is_stopped
from sweeper.packing import packing
from sweeper.search.plan import Assignment, Plan
from trials.config.trial_config import TrialConfig
from trials.running import progress
from trials.running.trial import TrialHost
from trials.storage.leases.owner import Owner
from trials.storage.place import Place
from trials.storage.trial_folder import State

BASE: dict[str, Any] = {
    "method": "one_shot",
    "dataset": "few_digits",
    "model": "tiny",
    "density": 0.5,
    "pretrain": {"epochs": 1},
    "finetune": {"epochs": 1},
}
RATE = {"finetune.lr": {"loguniform": [1e-3, 0.2]}}
REGROWN: dict[str, Any] = {
    "method": "regrow",
    "dataset": "few_digits",
    "model": "tiny",
    "prune": {"prune_fraction": 0.9, "finetune": {"epochs": 1}},
    "allocation": "proportional",
    "selection": "random",
    "initial": "magnitude",
    "pretrain": {"epochs": 1},
    "finetune": None,
}

SPACES: dict[str, dict[str, Any]] = {
    # complete and pruned trials, one that has failed for good, two documents, a callback
    "searched": {
        "trial": {**BASE, "finetune": {"epochs": 3}},
        "search": RATE,
        "sampler": "random",
        "enqueue": [{"finetune.lr": 0.1}, {"finetune.lr": 0.0011}],
        "samples": 3,
        "pruner": {"name": "median", "n_startup_trials": 1},
        "callbacks": [{"name": "tensorboard"}],
    },
    # a complete trial, a preempted one of two commits, one that fails, a scheduled one
    "open": {
        "trial": {**BASE, "finetune": {"epochs": 3}},
        "grid": {"finetune.lr": [0.05, 0.02, 1e30, 0.03]},
        "retries": 0,
    },
    "warm": {"trial": {**BASE, "finetune": {"epochs": 3}}, "search": RATE, "from_sweep": "searched", "samples": 2},
    "chosen": {"trial": BASE, "search": {"finetune.schedule": {"choice": ["constant", "cosine"]}}, "samples": 3},
    "repeated": {
        "trial": BASE,
        "search": RATE,
        "samples": 1,
        "replicates": {"values": {"seed": [0, 1]}},
        "confirm": {"seed": [2]},
    },
    "population": {
        "trial": {**BASE, "finetune": {"epochs": 2}},
        "search": RATE,
        "pbt": {"population": 2, "interval": 1, "generations": 2},
    },
    "regrown": {"trial": REGROWN},
    # packed trials in two parts, and one that is not packed
    "stowed": {"trial": BASE, "grid": {"seed": [0, 1, 2, 3]}},
}

OPEN = ("open",)
"""Sweeps that are left unfinished."""

LEARNING = ("warm", "chosen", "repeated")
"""Sweeps whose sampler draws by what it knows: a lost point is drawn anew as another one."""

Run = Callable[[TrialConfig, Place, TrialHost], State]
"""Runs a trial: :func:`trials.running.trial.run`, or a quick stand-in."""


def go(run: Run, plan: Plan, assignment: Assignment, display: Any, stop_after: int | None = None) -> None:
    """Run an assigned trial in this process; it is asked to stop after so many epochs of finetuning."""
    path, epochs = plan.folder.trial_folder(assignment.trial_id), list[int]()

    def follow(row: dict[str, Any]) -> None:
        epochs.extend([row["epoch"]] if row["stage"] == "finetune" else [])

    def is_over(step: int, row: dict[str, Any]) -> bool:
        plan.judge(assignment.trial_id, step, row[plan.space.objective], row)
        return is_stopped(path, step)

    judged = {"is_over": is_over} if plan.space.pruner is not None else {}
    asked = {} if stop_after is None else {"should_stop": lambda: max(epochs, default=0) >= stop_after}
    run(assignment.config, path, TrialHost(plan.folder.stages, follow, warn=display.note, **judged, **asked))
    for ending in plan.ended(assignment.trial_id):
        display.ended(ending.trial_id, ending.cell, ending.status, ending.value, already=False)


def run_plan(run: Run, plan: Plan, display: Any, lease: Any, **_: Any) -> bool:
    """In place of Ray: run what the plan hands out, one trial after the other."""
    while (assignment := plan.next()) is not None:
        go(run, plan, assignment, display)
    return False


def run_partly(run: Run, plan: Plan, display: Any, lease: Any, **_: Any) -> bool:
    """Leave a complete, a preempted, a failed and a scheduled trial."""
    for stop_after in (None, 2, None):
        assignment = plan.next()
        assert assignment is not None
        go(run, plan, assignment, display, stop_after)
        if stop_after:
            plan.next()  # the preempted one is handed out again, and its driver dies
    plan.next()
    plan.stopping = True
    return False


@contextmanager
def in_place_of_ray(run: Run, runs: Callable[..., bool] = run_plan, *, shows: bool = False) -> Iterator[None]:
    """Let drivers run their trials in this process; unless it ``shows``, they end without a summary and a report."""
    stand_in = types.ModuleType("sweeper.execution.on_ray.tune_run")
    stand_in.run_plan = partial(runs, run)  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, stand_in.__name__, stand_in)
        patch.setattr(on_ray, "tune_run", stand_in, raising=False)
        patch.setattr(os, "fsync", lambda file: None)
        due = progress.Progress.due
        patch.setattr(progress.Progress, "due", lambda self: (True, due(self)[1]))  # a commit after each step
        if not shows:
            patch.setattr(concluding, "report_line", lambda sweep: "")
            patch.setattr(concluding, "read", lambda path: None)
            patch.setattr(concluding, "show_tables", lambda sweep, console: None)
        yield


def begin(storage: Path, name: str, run: Run, runs: Callable[..., bool], code: int, **changes: Any) -> None:
    space = storage.parent / f"{name}.yaml"
    space.write_text(yaml.safe_dump({**SPACES[name], **changes}, sort_keys=False))
    with in_place_of_ray(run, runs, shows=name == "searched" and not changes):
        assert main(["--space", str(space), "--storage", str(storage)]) == code


def make_storage(storage: Path, run: Run) -> None:
    """Run every sweep of ``SPACES``, each as far as it is to go, and leave what killed processes leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "STOP_POLL_S", 0.0)
        begin(storage, "searched", run, run_plan, COMPLETE, samples=2)
        for name in SPACES:
            runs, code = (run_partly, STOPPED) if name in OPEN else (run_plan, COMPLETE)
            if name == "stowed":
                begin(storage, name, run, run_plan, COMPLETE, grid={"seed": [0, 1, 2]})
                patch.setattr(packing, "PART_TRIALS", 2)
                assert main(["--pack", name, "--storage", str(storage)]) == COMPLETE
            begin(storage, name, run, runs, code)
    _tell(SweepFolder(storage / "searched"))
    StopFile(storage / "open" / "stop").put("a driver that is gone")
    gone = Owner.me().document() | {"pid": 2**22 + 1}
    for folder in (storage / "open" / "lock", next((storage / "stages").iterdir())):
        (folder / "lease.json").write_text(json.dumps(gone))


def _tell(folder: SweepFolder) -> None:
    """What a callback's run leaves."""
    from sweeper.continuing import resumed_space

    (at,) = tracker_places(resumed_space(folder).callbacks, folder)
    told = ToldRows(at.told)
    told.open()
    for record in folder.records():
        told.begin(record.id)
        told.row(record.id, 3)
        told.end(record.id)
    told.close()


ENDS = {name: FAILURES if name == "open" else COMPLETE for name in SPACES}
"""Exit code of each sweep when run to its end."""
