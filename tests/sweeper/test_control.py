"""Listing, cancelling and forgiving sweeps from another process, with the storage on a path and in a bucket."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper import control
from sweeper.cli import COMPLETE, WRONG_INPUT, main
from sweeper.execution.stop_file import StopFile
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.search.plan import Plan
from tests.sweeper.sweeps import fail, finish, finished, make_space
from tests.trials.buckets import prefix, served
from tests.trials.processes import wait_for
from trials.storage.leases.lease import Lease
from trials.storage.leases.owner import Owner
from trials.storage.place import Place, place
from trials.storage.sealed import seal


@pytest.fixture(scope="module")
def bucket() -> Iterator[None]:
    with served():
        yield


@pytest.fixture(params=["path", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "path":
        return tmp_path
    request.getfixturevalue("bucket")
    return prefix(tmp_path.name)


def begin(storage: Place, name: str = "small") -> Plan:
    """A sweep of two trials: one complete, one that has failed for good."""
    space, folder = make_space(name=name, retries=0), SweepFolder(storage / name)
    folder.append({"space": space.document()})
    plan = Plan(space, folder)
    for end in (finish, fail):
        assignment = plan.next()
        assert assignment is not None
        end(plan, assignment.trial_id, **({"value": lambda _: 0.5} if end is finish else {}))  # type: ignore[operator]
        plan.ended(assignment.trial_id)
    return plan


def test_a_storage_lists_its_sweeps(storage: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--storage", str(storage)]) == COMPLETE
    assert capsys.readouterr().out == f"no sweeps in {storage}\n"
    for name in ("one", "two"):
        begin(storage, name)
    (storage / "stages").mkdir(exist_ok=True)
    with Lease(storage / "two" / "lock") as lease:
        assert lease.acquire()
        assert main(["--list", "--storage", str(storage)]) == COMPLETE
    one, two = capsys.readouterr().out.splitlines()
    counts = "2 cells, 2 done; 2 trials, 1 done, 0 running, 1 failed, 0 left"
    assert one == f"one: {counts}"
    assert two == f"two: {counts}"  # the driver is this process


def test_cancel_waits_for_the_driver(
    storage: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CANCEL_POLL_S", 0.01)
    begin(storage)
    lease, stop = Lease(storage / "small" / "lock"), StopFile(storage / "small" / "stop")
    assert lease.acquire()
    seen = threading.Event()

    def drive() -> None:
        while not stop.path.exists():
            seen.wait(0.01)
        stop.remove_unless_for(lease.token)
        if stop.path.exists():  # the stop file names this driver
            seen.set()
        stop.remove()
        lease.release()

    thread = threading.Thread(target=drive)
    thread.start()
    assert main(["--cancel", "small", "--storage", str(storage)]) == COMPLETE
    thread.join()
    assert seen.is_set()
    asked, stopped = capsys.readouterr().out.splitlines()
    assert asked.startswith("small: asked process ")
    assert stopped.endswith("0 left; run the same command again to resume")


def test_cancel_without_a_driver(storage: Place, capsys: pytest.CaptureFixture[str]) -> None:
    begin(storage)
    assert main(["--cancel", "small", "--storage", str(storage)]) == COMPLETE
    assert "there is nothing to cancel" in capsys.readouterr().out
    assert not (storage / "small" / "stop").exists()
    assert main(["--cancel", "smal", "--storage", str(storage)]) == WRONG_INPUT
    assert "is not a sweep's folder" in capsys.readouterr().err


def test_a_driver_that_does_not_answer_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CANCEL_S", 0.1)
    begin(tmp_path)
    with Lease(tmp_path / "small" / "lock") as lease:
        assert lease.acquire()
        assert main(["--cancel", "small", "--storage", str(tmp_path)]) == WRONG_INPUT
    assert "has not stopped within 0.1 s" in capsys.readouterr().err


@pytest.mark.fault("damaged-file")
def test_line_breaks_and_escapes_in_a_storage_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "CANCEL_S", 0.1)
    odd, shown = "a\nb\x1b[31m", "a\\nb\\x1b[31m"
    plan = begin(tmp_path)
    failed = next(record for record in plan.folder.records() if record.state and record.state.status == "failed")
    attempt, _ = failed.folder.begin()
    attempt.end("failed", error={"type": odd, "message": odd, "traceback": ""}, failures=2)
    (tmp_path / "small" / "searches.json").write_bytes(
        seal({"schema": 1, "cells": {odd: {"samples": 1, "why": odd, "over": True}}})
    )
    lease = {**Owner.me().document(), "host": odd, "kernel": "another"}
    (tmp_path / "small" / "lock").mkdir(exist_ok=True)
    (tmp_path / "small" / "lock" / "lease.json").write_text(json.dumps(lease))
    storage = ["--storage", str(tmp_path)]
    assert main(["--show", "small", *storage]) == COMPLETE
    said = capsys.readouterr().out
    assert f"driven by process {os.getpid()} on {shown}\n" in said
    assert f"failed: {failed.id}: {shown}: a b\\x1b[31m\n" in said
    assert f"ended early: {shown} after 1 sample: {shown}\n" in said
    assert main(["--cancel", "small", *storage]) == WRONG_INPUT
    asked = capsys.readouterr()
    assert asked.out.splitlines() == [
        f"small: asked process {os.getpid()} on {shown} to stop; its trials commit what they have"
    ]
    assert asked.err.count("\n") == 1
    assert shown in asked.err
    assert "\x1b" not in said + asked.out + asked.err


def test_a_stop_file_for_a_dead_driver_does_not_stop_the_next(tmp_path: Path) -> None:
    stop = StopFile(tmp_path / "stop")
    stop.put("the dead one")
    stop.remove_unless_for("me")
    assert not stop.there()
    stop.remove_unless_for("me")
    stop.put("me")
    stop.remove_unless_for("me")
    assert stop.there()


def test_a_request_to_stop_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    stop, seen, done = StopFile(tmp_path / "stop"), set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add(stop.path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(300):
            stop.put("token")
            stop.remove()
        stop.put("token")
        wait_for(lambda: seen, "the request")
    finally:
        done.set()
        reader.join()
    assert seen == {b"token"}


@pytest.mark.fault("trial-fails")
def test_failed_trials_are_forgiven(storage: Place) -> None:
    plan = begin(storage)
    assert (plan.complete, finished(plan), plan.failed) == (True, 1, 1)
    folder = SweepFolder(place(str(storage / "small")))
    done = {record.id: record.state for record in folder.records() if record.finished}
    assert folder.forgive() == 1
    assert folder.forgive() == 0
    again = Plan(plan.space, folder)
    assert (again.complete, finished(again), again.failed) == (False, 1, 0)
    assignment = again.next()
    assert assignment is not None
    assert assignment.trial_id not in done
    finish(again, assignment.trial_id, lambda _: 0.5)
    again.ended(assignment.trial_id)
    assert again.complete
    records = {record.id: record for record in folder.records()}
    assert all(records[name].state == state for name, state in done.items())
    state = records[assignment.trial_id].state
    assert state is not None
    assert replace(state, attempt=2).status == "complete"
    assert state.attempt == 2


@pytest.mark.fault("read-only-storage")
def test_a_driver_that_cannot_be_asked_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(stop: StopFile, token: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(stop.path))

    monkeypatch.setattr(StopFile, "put", put)
    begin(tmp_path)
    with Lease(tmp_path / "small" / "lock") as lease:
        assert lease.acquire()
        assert main(["--cancel", "small", "--storage", str(tmp_path)]) == WRONG_INPUT
    said = capsys.readouterr().err
    assert "cannot be asked to stop, since the folder cannot be written" in said
    assert said.count("\n") == 1
