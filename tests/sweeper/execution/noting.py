"""A callback that notes what it is told, and a run that tells it: for tests of callbacks. Needs Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper.execution.told_rows import ToldRows, rows_from
from trials.storage.trial_folder import TrialFolder

tune = pytest.importorskip("ray.tune")

Event = tuple[str, str, int | None]


class Noting(tune.Callback):  # type: ignore[misc]  # Ray is not typed
    """Notes events: name, trial, number of the row."""

    def __init__(self, wrong: Callable[[str], None] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.results: list[dict[str, Any]] = []
        self.wrong = wrong

    def setup(self, **_: Any) -> None:
        self.wrong("setup")

    def note(self, event: str, trial: Any, number: int | None = None) -> None:
        self.wrong(event)
        self.events.append((event, trial.trial_id, number))

    def on_trial_start(self, trial: Any, **_: Any) -> None:
        self.note("start", trial)

    def on_trial_result(self, trial: Any, result: dict[str, Any], **_: Any) -> None:
        self.note("result", trial, result["training_iteration"])
        self.results.append(result)

    def on_trial_complete(self, trial: Any, **_: Any) -> None:
        self.note(f"complete {trial.status}", trial)

    def on_trial_error(self, trial: Any, **_: Any) -> None:
        self.note(f"error {trial.status}", trial)

    def on_experiment_end(self, **_: Any) -> None:
        self.wrong("end")


class Run:
    """A run of a sweep for one callback, as Tune and the plan tell it."""

    def __init__(
        self, folder: Path, callback: Any, timeout_s: float = 20.0, artifacts: tuple[str, ...] = (), name: str = "mine"
    ) -> None:
        from sweeper.execution.on_ray.trackers.guarded import Guarded
        from sweeper.execution.on_ray.trackers.tracker import Tracker

        self.folder, self.said = folder, list[str]()
        told = ToldRows(folder / "logs" / "told.jsonl")
        tracker = Tracker(name, "small", lambda: callback, folder / "logs", told, timeout_s, "", artifacts)
        self.guarded = Guarded(tracker, lambda trial_id: folder / trial_id, self.said.append)
        self.guarded.begin()

    def message(self, trial_id: str) -> Any:
        return SimpleNamespace(
            trial_id="of-tune", config={"trial": trial_id, "config": {"density": 0.5}, "cell": "density=0.5"}
        )

    def start(self, trial_id: str) -> None:
        self.guarded.on_trial_start(0, [], self.message(trial_id))

    def rows(self, trial_id: str, *numbers: int) -> None:
        rows = rows_from([{"epoch": number, "val_loss": None} for number in range(1, 100)], 0)
        result = {"pid": 1, "rows": [rows[number - 1] for number in numbers]}
        self.guarded.on_trial_result(0, [], self.message(trial_id), result)

    def step(self) -> None:
        self.guarded.on_step_begin(0, [])


def committed(folder: Path, rows: int) -> None:
    attempt, _ = TrialFolder(folder).begin(host="here")
    table = [{"epoch": number, "val_loss": None} for number in range(1, rows + 1)]
    attempt.commit(checkpoint={}, rows={"epochs": table}, progress={}, seconds=1.0, status="complete")


def past(failed: bool = False) -> Callable[[str], Any]:
    return lambda trial_id: SimpleNamespace(config={"density": 0.5}, cell="density=0.5", failed=failed)
