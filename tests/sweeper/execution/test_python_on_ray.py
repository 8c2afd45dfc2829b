"""``sweeper.run`` on Ray: it starts once and stays, one that the process has is used; a signal commits, then raises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.execution.on_ray import kept, stopping, tune_run
from tests.sweeper.on_ray import ROOT
from tests.trials.processes import PATIENCE_S, wait_for
from trials.errors import UserError
from trials.storage.trial_folder import TrialFolder

SPACE = {
    "trial": {"method": "dense", "dataset": "digits", "model": "tiny", "checkpoint_every_s": 0.2},
    "grid": {"seed": [0]},
    "search": {},
}

INTERRUPTED = f"""
import asyncio, json, signal, threading
import sweeper

def run(epochs=100, **options):
    return sweeper.run({SPACE!r}, name="small", set={{"trial.train.epochs": epochs}}, **options)

said, handler = {{}}, signal.getsignal(signal.SIGINT)

async def cell():  # as a notebook's, and in a thread that ends: the Ray that it has started must not end with it
    said["first"] = run(1, storage="first", quiet=True).standing().complete

thread = threading.Thread(target=lambda: asyncio.run(cell()))
thread.start()
thread.join()
import ray
session = ray.get_runtime_context().get_session_name()
try:
    run()
except KeyboardInterrupt as stopped:
    said["stopped"] = str(stopped)
said["handlers"] = signal.getsignal(signal.SIGINT) is handler
said["statuses"] = sweeper.load("small").trials["status"].tolist()
sweep = run(quiet=True)
said["then"] = sweep.trials[["status", "attempts"]].values.tolist(), len(sweep.epochs)
said["same"] = session == ray.get_runtime_context().get_session_name()
print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_signal_commits_and_raises_and_the_same_call_resumes_on_the_same_ray(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", INTERRUPTED]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stages = tmp_path / "results" / "stages"

    def commits() -> int:
        states = [TrialFolder(folder).state() for folder in stages.iterdir()] if stages.is_dir() else []
        return sum(len(state.commits) for state in states if state is not None)

    wait_for(lambda: commits() > 0 or process.poll() is not None, "a commit", 3 * PATIENCE_S)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=3 * PATIENCE_S)
    assert process.returncode == 0, err.decode()
    said = json.loads(out.decode().splitlines()[-1])
    assert said == {
        "first": True,
        "stopped": "small was stopped; everything is committed, and the same call resumes",
        "handlers": True,
        "statuses": ["preempted"],
        "then": [[["complete", 2]], 100],
        "same": True,
    }
    (stage,) = stages.iterdir()
    state = TrialFolder(stage).state()
    assert state is not None
    assert (state.status, state.attempt) == ("complete", 2)
    assert b"a second signal does not wait for them" in out


@pytest.mark.usefixtures("no_stray_handlers")
def test_the_ray_of_the_process_is_used_and_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray: Any) -> None:
    monkeypatch.chdir(tmp_path)
    session = ray.get_runtime_context().get_session_name()
    found = sweeper.run(SPACE, name="small", set={"trial.train.epochs": 1}, quiet=True)
    assert found.trials["status"].tolist() == ["complete"]
    assert ray.get_runtime_context().get_session_name() == session
    assert kept.joined()
    assert not kept.disconnect()
    assert ray.is_initialized()
    with pytest.raises(UserError, match=r"address is '127\.0\.0\.1:1', but this process has joined the Ray at"):
        sweeper.run(SPACE, name="other", set={"trial.train.epochs": 1}, address="127.0.0.1:1", quiet=True)


def test_sweeps_run_in_several_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, list[str]] = {}

    def run(name: str) -> None:
        sweep = sweeper.run(SPACE, name=name, set={"trial.train.epochs": 1}, quiet=True)
        found[name] = sweep.trials["status"].tolist()

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * PATIENCE_S)
    assert found == {key: ["complete"] for key in ("one", "two", "three")}


def test_a_second_signal_leaves_the_stop_file_to_the_workers_of_a_ray_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray: Any
) -> None:
    """They see it, commit and end; the next driver removes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stopping, "ECHO_S", 0.0)
    stop = tmp_path / "results" / "small" / "stop"

    def signals_come(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(stop.exists, "the stop file")
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("went on")

    with monkeypatch.context() as patch:
        patch.setattr(tune_run, "_run_out", signals_come)
        with pytest.raises(KeyboardInterrupt):
            sweeper.run(SPACE, name="small", quiet=True)
    assert stop.exists()
    assert ray.is_initialized()
    with monkeypatch.context() as patch:
        patch.setattr(tune_run, "_run_out", lambda *_: None)
        with pytest.warns(UserWarning, match="1 left.*the same call resumes"):
            sweeper.run(SPACE, name="small", quiet=True)
    assert not stop.exists()
