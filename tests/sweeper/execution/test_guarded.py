"""Callbacks in threads of their own: what they are told, and that none that fails, hangs or is slow stops a sweep."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper.execution.told_rows import ToldRows
from tests.sweeper.execution.noting import Noting, Run, committed, past
from trials.errors import UserError


def test_a_trial_is_followed_once_however_many_attempts_it_takes(tmp_path: Path) -> None:
    callback = Noting()
    run = Run(tmp_path, callback)
    run.start("a")
    run.rows("a", 1, 2)
    run.start("a")  # its process died after the commit of row 1
    run.rows("a", 2)
    run.rows("a", 3)
    committed(tmp_path / "a", 4)  # row 4 did not arrive
    run.guarded.trial_over("a", failed=False)
    run.start("b")
    run.rows("b", 1)
    run.guarded.end()
    assert run.said == []
    assert callback.events == [
        ("start", "a", None),
        *(("result", "a", number) for number in (1, 2, 3, 4)),
        ("complete TERMINATED", "a", None),
        ("start", "b", None),
        ("result", "b", 1),
        ("complete PAUSED", "b", None),
    ]
    first = callback.results[0]
    assert {
        "trial_id": "a",
        "cell": "density=0.5",
        "config": {"density": 0.5},
        "epoch": 1,
        "pid": 1,
    }.items() <= first.items()
    assert "val_loss" not in first


def test_a_resumed_sweep_tells_only_what_is_new(tmp_path: Path) -> None:
    runs = []
    for numbers in ((1, 2), (2, 3)):
        callback = Noting()
        run = Run(tmp_path, callback)
        run.start("a")
        runs.append(run.guarded._open["a"])
        run.rows("a", *numbers)
        run.guarded.end()
    assert [event for event in callback.events if event[0] == "result"] == [("result", "a", 3)]
    assert [followed.resumed for followed in runs] == [False, True]
    assert runs[0].run_id == runs[1].run_id
    assert len(runs[0].run_id) == 32


def test_what_was_over_before_is_told_to_its_end_once(tmp_path: Path) -> None:
    run = Run(tmp_path, Noting())
    run.start("a")
    run.rows("a", 1)
    run.guarded.end()  # as after a kill: the trial ends without its driver
    committed(tmp_path / "a", 3)
    callback = Noting()
    again = Run(tmp_path, callback)
    assert again.guarded.tracker.told.unfinished() == ["a"]
    again.guarded.catch_up(["a"], past(failed=True))
    again.guarded.end()
    assert callback.events == [("start", "a", None), ("result", "a", 2), ("result", "a", 3), ("error ERROR", "a", None)]
    assert ToldRows(tmp_path / "logs" / "told.jsonl").unfinished() == []


def test_rays_own_loggers_are_told_of_a_trial_that_is_over(tmp_path: Path) -> None:
    from ray.tune.logger import JsonLoggerCallback

    committed(tmp_path / "a", 2)
    run = Run(tmp_path, JsonLoggerCallback(), name="ray.tune.logger:JsonLoggerCallback")
    run.guarded.catch_up(["a"], past())
    run.guarded.end()
    assert run.said == []
    rows = [json.loads(line) for line in (tmp_path / "logs" / "a" / "result.json").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]


def test_a_line_that_a_kill_has_cut_off_is_left_out(tmp_path: Path) -> None:
    told = ToldRows(tmp_path / "told.jsonl")
    told.open()
    run = told.begin("a").run
    told.row("a", 7)
    told.close()
    with told.path.open("a") as stream:
        stream.write('{"trial": "a", "ro')
    again = ToldRows(told.path)
    again.open()
    assert (again.rows_of("a"), again.begin("a").run) == (7, run)
    again.row("a", 8)
    again.close()
    assert ToldRows(told.path).rows_of("a") == 8


@pytest.fixture
def forever() -> Iterator[threading.Event]:
    """An event that comes when the test is over."""
    over = threading.Event()
    yield over
    over.set()


FAILS = {
    "an exception": (ValueError("no\nserver"), "ValueError: no server"),
    "an exit": (SystemExit(3), "SystemExit: 3"),
    "an interrupt": (KeyboardInterrupt("now"), "KeyboardInterrupt: now"),
}
EVENTS = {"start": "on_trial_start", "result": "on_trial_result", "complete TERMINATED": "on_trial_complete"}


@pytest.mark.parametrize("event", [*EVENTS, "end"])
@pytest.mark.parametrize("kind", FAILS)
def test_one_that_fails_is_named_once_and_told_of_nothing_more(tmp_path: Path, event: str, kind: str) -> None:
    error, said = FAILS[kind]

    def wrong(what: str) -> None:
        if what == event:
            raise error

    callback = Noting(wrong)
    run = Run(tmp_path, callback)
    run.start("a")
    run.rows("a", 1)
    run.guarded.trial_over("a", failed=False)
    if event == "end":
        run.guarded.end()
    else:
        run.guarded._thread.join()
    run.step()
    run.step()
    assert len(run.said) == 1
    assert f"the callback mine failed in {EVENTS.get(event, 'on_experiment_end')} ({said}): it is told" in run.said[0]
    assert run.guarded.told("a") is None
    before = list(callback.events)
    run.start("b")
    run.rows("b", 1)
    run.guarded.end()
    assert callback.events == before
    assert len(run.said) == 1
    if event != "end":
        assert ToldRows(tmp_path / "logs" / "told.jsonl").unfinished() == ["a", "b"], "the next run tells it"


def test_one_that_hangs_holds_nobody_up(tmp_path: Path, forever: threading.Event) -> None:
    run = Run(tmp_path, Noting(lambda event: event == "result" and forever.wait(60)), timeout_s=0.2)
    began = time.monotonic()
    run.start("a")
    for number in range(1, 50):
        run.rows("a", number)
    while not run.said:
        run.step()
        assert time.monotonic() < began + 30
        time.sleep(0.02)
    assert (
        "the callback mine has not returned from on_trial_result for 0.2 s: it is told of nothing more" in run.said[0]
    )
    run.guarded.end()
    assert time.monotonic() < began + 30
    assert len(run.said) == 1


def test_one_that_is_slow_is_waited_for_a_while_at_the_end(tmp_path: Path) -> None:
    callback = Noting(lambda event: time.sleep(0.05))
    run = Run(tmp_path, callback, timeout_s=0.5)
    run.start("a")
    for number in range(1, 60):
        run.rows("a", number)
    began = time.monotonic()
    run.guarded.end()
    assert time.monotonic() < began + 10
    assert len(run.said) == 1
    assert "had not heard all when the run ended, nor 0.5 s later (" in run.said[0]
    assert ToldRows(tmp_path / "logs" / "told.jsonl").unfinished() == ["a"]


def test_one_that_falls_far_behind_is_given_up(
    tmp_path: Path, forever: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.execution.on_ray.trackers.guarded.MOST_BEHIND", 5)
    run = Run(tmp_path, Noting(lambda event: event == "result" and forever.wait(60)))
    run.start("a")
    for number in range(1, 20):
        run.rows("a", number)
    run.step()
    assert "the callback mine has fallen 5 events behind" in run.said[0]
    run.guarded.end()


@pytest.mark.parametrize("error", [OSError("no server"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_one_that_cannot_be_set_up_is_refused_in_one_line(tmp_path: Path, error: BaseException) -> None:
    def wrong(event: str) -> None:
        raise error

    with pytest.raises(
        UserError, match=f"callbacks has 'mine', which cannot be set up: {type(error).__name__}"
    ) as found:
        Run(tmp_path, Noting(wrong))
    assert "\n" not in str(found.value)


def test_one_whose_set_up_hangs_is_refused(tmp_path: Path, forever: threading.Event) -> None:
    with pytest.raises(UserError, match=r"cannot be set up within 0\.2 s: give it a larger timeout_s, or leave it out"):
        Run(tmp_path, Noting(lambda event: forever.wait(60)), timeout_s=0.2)


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    run = Run(tmp_path, Noting())
    monkeypatch.setattr(run.guarded.tracker.told, "_write", full)
    run.start("a")
    run.rows("a", 1)
    run.step()
    assert len(run.said) == 1
    assert "No space left on device" in run.said[0]
    run.guarded.end()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(UserError, match=r"cannot be set up: .*told\.jsonl cannot be written \("):
        Run(tmp_path, Noting())


def test_steps_are_told_to_those_that_want_them(tmp_path: Path) -> None:
    class Steps(Noting):
        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
            self.events.append(("step", "", iteration))

    callback = Steps()
    run = Run(tmp_path, callback)
    run.guarded.on_step_begin(1, [])
    run.guarded.on_step_end(1, [])
    run.guarded.end()
    assert callback.events == [("step", "", 1)]


class Writing(Noting):
    """Appends to a file of a trial, in a folder that it makes itself."""

    def on_trial_start(self, trial: Any, **_: Any) -> None:
        trial.init_local_path()
        (Path(trial.local_path) / "own").mkdir()
        self.file = (Path(trial.local_path) / "own" / "log").open("a")
        super().on_trial_start(trial)

    def on_trial_complete(self, trial: Any, **_: Any) -> None:
        self.file.close()
        (Path(trial.local_path) / "last").write_text("x")
        super().on_trial_complete(trial)


@pytest.mark.parametrize("mode", [0o755, 0o2775])
def test_a_colleague_of_the_group_may_go_on_if_the_sweep_is_shared(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o022)
    try:
        (folder := tmp_path / "sweep").mkdir()
        folder.chmod(mode)
        run = Run(folder, Writing())
        run.start("a")
        while not run.guarded.callback.events:
            time.sleep(0.01)
        run.guarded.end()
    finally:
        os.umask(before)
    found = {path.relative_to(folder): path.stat().st_mode & 0o020 for path in folder.glob("**/*")}
    assert {str(path) for path in found} >= {"logs", "logs/told.jsonl", "logs/a", "logs/a/own/log", "logs/a/last"}
    assert set(found.values()) == {mode & 0o020}, found


@pytest.mark.parametrize(
    "fields",
    [
        {"rows": None},
        {"rows": "7"},
        {"rows": True},
        {"rows": 7.5},
        {"rows": -1},
        {"rows": [1]},
        {"rows": 9, "ended": 1},
        {"ended": None},
        {"run": 3},
        {"run": "", "rows": 9},
        {"unknown": 1},
    ],
)
def test_a_line_with_a_field_of_another_type_is_left_out(tmp_path: Path, fields: dict[str, Any]) -> None:
    told = ToldRows(tmp_path / "told.jsonl")
    told.open()
    run = told.begin("a").run
    told.row("a", 5)
    told.close()
    with told.path.open("a") as stream:
        stream.write(json.dumps({"trial": "a", **fields}) + "\n" + json.dumps({"trial": "b", **fields}) + "\n")
        stream.write("[" * 100_000 + "\n")
    again = ToldRows(told.path)
    assert (again.rows_of("a"), again.begin("a").run, again.unfinished()) == (5, run, ["a"])


def test_the_folder_in_which_machines_are_tried_is_shared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeper.execution.on_ray import requirements

    def answered(where: Path, questions: Any, folder: str, waiting: Any) -> list[Any]:
        modes.append(Path(folder).stat().st_mode & 0o7777)
        for node, _, _ in questions:
            (Path(folder) / node["NodeID"]).write_bytes(node["NodeID"].encode())
        return [node for node, _, _ in questions]

    modes: list[int] = []
    tmp_path.chmod(0o2775)
    here = SimpleNamespace(get_node_id=lambda: "one")
    monkeypatch.setattr(requirements.ray, "nodes", lambda: [{"NodeID": name, "Alive": True} for name in ("one", "two")])
    monkeypatch.setattr(requirements.ray, "get_runtime_context", lambda: here)
    monkeypatch.setattr(requirements, "_ask_shared", answered)
    before = os.umask(0o022)
    try:
        requirements.require_shared(tmp_path)
    finally:
        os.umask(before)
    assert [mode & 0o775 for mode in modes] == [0o775, 0o775]
    assert list(tmp_path.iterdir()) == []
