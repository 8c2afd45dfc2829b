"""Small sweeps, run whole on Ray."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import sweeper
from sweeper.cli import COMPLETE, FAILURES, STOPPED, WRONG_INPUT, main
from sweeper.execution.assigned_trial import run_assigned
from sweeper.execution.live_view import LiveView
from sweeper.results.tables import read
from tests.sweeper import tracked
from tests.sweeper.on_ray import ROOT, SPACE
from tests.sweeper.sweeps import begun, make_space
from tests.trials.folders import state_of
from trials.errors import UserError
from trials.storage.leases.lease import Lease
from trials.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.usefixtures("ray")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SPACE)
    return tmp_path


def sweep(*arguments: str) -> int:
    return main(["--space", "small.yaml", *arguments])


@contextmanager
def watched(path: Path, look: Callable[[sweeper.Sweep], None]) -> Iterator[None]:
    """Call ``look`` with the sweep's tables repeatedly from another thread, as another process would read them."""
    over, failures = threading.Event(), []

    def watch() -> None:
        while not over.wait(0.05):
            try:
                look(read(path))
            except UserError:  # not begun
                continue
            except BaseException as error:  # noqa: BLE001
                failures.append(error)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


def assert_whole(tables: sweeper.Sweep) -> None:
    assert tables.damaged == ()
    assert tables.trials["trial"].is_unique
    assert not tables.epochs.duplicated(["trial", "stage", "level", "epoch"]).any()
    assert not tables.layers.duplicated(["trial", "stage", "level", "layer"]).any()
    complete = tables.trials.query("status == 'complete'")["trial"]
    rows = tables.epochs.groupby("trial").size().reindex(complete)
    assert (rows == 3 + 1 + 4).all(), rows  # pretraining, the network before pruning, pruning


def test_a_sweep_from_end_to_end(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    path = here / "results" / "small"
    seen: list[dict[str, int]] = []
    asked_to_stop: list[bool] = []

    def look(tables: sweeper.Sweep) -> None:
        assert_whole(tables)
        seen.append(tables.trials["status"].value_counts().to_dict())
        if seen[-1].get("complete") and not asked_to_stop:
            asked_to_stop.append(True)
            (path / "stop").touch()

    with watched(path, look):
        assert sweep() == STOPPED  # ``look`` has created the stop file
    assert len(seen) > 3
    before = sweeper.load(path)
    done = before.trials.query("status == 'complete'")
    assert 1 <= len(done) < 8
    assert set(before.trials["status"]) <= {"complete", "preempted", "scheduled"}
    assert not (path / "stop").exists()

    with watched(path, assert_whole):
        assert sweep() == COMPLETE
    tables = sweeper.load(path)
    assert_whole(tables)
    assert tables.trials["status"].tolist() == 8 * ["complete"]
    assert tables.trials["cell"].value_counts().tolist() == 4 * [2]
    assert tables.trials["attempts"].max() <= 2
    kept = tables.trials[tables.trials["trial"].isin(done["trial"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept[done.columns], done.reset_index(drop=True), check_dtype=False)
    stages = [TrialFolder(stage).state() for stage in (here / "results" / "stages").iterdir()]
    assert [(s.status, s.attempt <= 2) for s in stages if s is not None] == 2 * [("complete", True)]
    assert len({tuple(sorted(group["stage_id"].dropna().unique())) for _, group in tables.epochs.groupby("trial")}) == 2
    out = capsys.readouterr().out
    assert "4 cells, 4 done; 8 trials, 8 done" in out

    assert sweep() == COMPLETE
    assert sweep("--samples", "3", "--set", "grid.density=[0.5, 0.35, 0.2]", "--serial") == COMPLETE
    extended = sweeper.load(path)
    assert_whole(extended)
    assert extended.trials["status"].tolist() == 18 * ["complete"]
    old = extended.trials[extended.trials["trial"].isin(tables.trials["trial"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, tables.trials.reset_index(drop=True))
    assert set(extended.trials["attempts"]) <= {1, 2}
    assert extended.trials["cell"].value_counts().tolist() == 6 * [3]


@pytest.mark.fault("trial-fails")
def test_trials_that_fail_do_not_stop_the_others_and_halves_of_a_core_are_shared(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    path = here / "results" / "small"
    most = 0

    def look(tables: sweeper.Sweep) -> None:
        nonlocal most
        most = max(most, int((tables.trials["status"] == "running").sum()))

    settings = ["grid.density=null", "search=null", "samples=null", "grid.prune.lr=[0.05, 1e30]", "trial.density=0.2"]
    settings += ["grid.seed=[0, 1, 2]", "resources.cpu=0.5", "trial.prune.epochs=30", "trial.pretrain.epochs=1"]
    with watched(path, look):
        assert sweep(*(word for setting in settings for word in ("--set", setting))) == FAILURES
    assert most == 4
    trials = sweeper.load(path).trials.set_index("trial")
    failed = trials[trials["prune.lr"] == 1e30]
    assert failed["status"].tolist() == 3 * ["failed"]
    assert (failed["failures"].tolist(), failed["attempts"].tolist()) == ([2, 2, 2], [2, 2, 2])
    assert failed["error_type"].tolist() == 3 * ["NonFiniteLoss"]
    assert failed["error_message"].str.contains("stage prune").all()
    others = trials[trials["prune.lr"] == 0.05]
    assert (others["status"].tolist(), others["attempts"].tolist()) == (3 * ["complete"], [1, 1, 1])
    out = capsys.readouterr().out
    assert "NonFiniteLoss" in out
    assert "tried again" in out
    assert "6 trials, 3 done, 0 running, 3 failed" in out


def test_layers_without_weights_are_warned_of(here: Path) -> None:
    space = make_space()
    plan = begun(space, here / "empty")
    output = io.StringIO()
    view = LiveView(plan.totals, Console(file=output, width=200), "val_accuracy", "maximize")
    from sweeper.execution.on_ray.tune_run import PlanSearcher

    searcher = PlanSearcher(plan, view, Lease(here / "lease"))
    assignment = plan.next()
    assert assignment is not None
    searcher._trial_of["tune"] = assignment.trial_id
    attempt, _ = TrialFolder(plan.folder.trial_folder(assignment.trial_id)).begin()
    attempt.end("complete", result={"val_accuracy": 0.1, "empty_layers": 2})
    searcher.on_trial_complete("tune")
    assert f"{assignment.trial_id} (density=0.5): 2 layers have no weights left" in output.getvalue()


@pytest.fixture
def reports() -> list[dict[str, Any]]:
    return []


def assignment_in(here: Path, **fields: Any) -> dict[str, Any]:
    recipe = {"epochs": 1}
    config = {"method": "dense", "dataset": "digits", "model": "tiny", "train": recipe, **fields}
    (here / "trial").mkdir(exist_ok=True)
    (here / "trial" / "config.json").touch()  # the driver has scheduled it
    where = {"folder": str(here / "trial"), "stages": str(here / "stages"), "stop": str(here / "stop")}
    told = {"threads": 1, "gpu": 0, "pieces": 1, "alone": True, "alive_every_s": 30.0}
    return {"trial": "dense-x", "config": config, **told, **where}


def test_a_worker_reports_how_a_trial_ended(here: Path, reports: list[dict[str, Any]]) -> None:
    run_assigned(assignment_in(here), reports.append)
    assert reports[-1] == {"trial": "dense-x", "status": "complete"}


@pytest.mark.parametrize("fields", [{"device": "cuda:99"}, {"method": "tomorrow's"}, {"train": "many"}])
def test_a_trial_that_cannot_begin_has_failed(
    here: Path, reports: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    for turn in (1, 2):
        run_assigned(assignment_in(here, **fields), reports.append)
        assert reports[-1] == {"trial": "dense-x", "status": "failed"}
        state = state_of(here / "trial")
        assert (state.failures, state.attempt) == (turn, turn)
        assert state.error is not None
        assert str(next(iter(fields.values()))) in state.error["message"] + state.error["traceback"]


def test_a_worker_that_is_to_stop_does_not_begin(here: Path, reports: list[dict[str, Any]]) -> None:
    (here / "stop").touch()
    run_assigned(assignment_in(here), reports.append)
    assert reports == [{"trial": "dense-x", "status": "preempted"}]
    assert TrialFolder(here / "trial").state() is None


@pytest.mark.fault("no-access")
def test_a_worker_that_does_not_see_the_storage_reports_it(
    here: Path, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.execution.assigned_trial.STORAGE_LAG_S", 0.1)
    assignment = assignment_in(here)
    (here / "trial" / "config.json").unlink()
    run_assigned(assignment, reports.append)
    assert reports == [{"trial": "dense-x", "blind": socket.gethostname()}]
    assert TrialFolder(here / "trial").state() is None


def run_door(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), "--space", "small.yaml", "--address", "local", *arguments]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env={**env, **environment}, capture_output=True, text=True, timeout=120)
    done.stderr = re.sub(r"(?m)^\[.*network_util\.cc.*\n", "", done.stderr)  # Ray prints it on hosts without a network
    return done


def test_sweep_py_alone_finds_the_project(here: Path) -> None:
    """sweep.py alone, copied to the head's home, as `ray submit` copies it."""
    door = here / "home" / "sweep.py"
    door.parent.mkdir()
    door.write_bytes((ROOT / "sweep.py").read_bytes())
    settings = ["--set", "grid.density=[0.5]", "--set", "grid.seed=[0]", "--samples", "1"]
    done = run_door(door, *settings, SWEEP_HOME=str(ROOT))
    assert done.returncode == COMPLETE, done.stderr
    assert "1 trials, 1 done" in done.stdout
    assert done.stderr == ""
    mangled = run_door(door, "--set", "grid.density=[0.5,", "0.2]", SWEEP_HOME=str(ROOT))
    assert mangled.returncode == WRONG_INPUT
    assert "ray submit passes the line unquoted" in mangled.stderr
    lost = run_door(door, "--dry-run", SWEEP_HOME=str(here))
    assert lost.returncode != 0
    assert "sweeper" in lost.stderr


def test_resources_that_no_machine_has_are_refused(here: Path) -> None:
    """On a Ray that it would start itself; one that is joined may have, or still get, such a machine."""
    done = run_door(ROOT / "sweep.py", "--set", "resources.cpu=4096")
    assert done.returncode == WRONG_INPUT, done.stderr
    assert done.stderr.startswith("error: resources.cpu is 4096, but this machine has ")
    assert done.stderr.count("\n") == 1
    again = run_door(ROOT / "sweep.py", "--dry-run")
    assert again.returncode == COMPLETE


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "nowhere.invalid:6379"])
def test_an_address_without_a_cluster_is_refused(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    from sweeper.execution.on_ray import cluster

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    began = time.monotonic()
    assert sweep("--address", address) == WRONG_INPUT
    assert time.monotonic() - began < 30
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --address is {address!r}, but")


def test_a_job_of_the_jobs_api_runs_the_code_it_brought(ray: Any) -> None:
    """``ray job submit`` sets the driver's runtime environment in advance. A whole job: tests/cluster/cut_off.sh."""
    given = {
        "working_dir": "gcs://_ray_pkg_of_the_job.zip",
        "py_modules": ["gcs://_ray_pkg_of_a_plugin.zip"],
        "env_vars": {"OF_THE_JOB": "kept"},
    }
    env = {**os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": given, "metadata": {}})}
    code = (
        "import json, sys; from sweeper.execution.on_ray import cluster; assert not cluster.connect(sys.argv[1]);"
        "print(json.dumps(dict(cluster.ray.get_runtime_context().runtime_env)))"
    )
    command = [sys.executable, "-c", code, ray.get_runtime_context().gcs_address]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    joined = json.loads(done.stdout)
    assert joined["env_vars"] == {"OF_THE_JOB": "kept"}
    assert joined["working_dir"] == given["working_dir"]
    sent = joined["py_modules"]
    assert len(sent) == 3
    assert all(module.startswith("gcs://_ray_pkg_") for module in sent)
    assert sent[2:] == given["py_modules"]


def test_callbacks_follow_trials_and_one_that_fails_stops_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "small.yaml").write_text(tracked.SPACE)
    (here / "track.py").write_text(tracked.PLUG_IN)
    assert sweep() == COMPLETE
    out = " ".join(capsys.readouterr().out.split())
    said = (
        "the callback track:Breaks failed in on_trial_result (ValueError: no such tracker): it is told of nothing more"
    )
    assert out.count(said) == 1
    ids = sorted(path.name for path in (here / "results" / "small" / "trials").iterdir())
    seen = [json.loads(line) for line in (here / "seen.jsonl").read_text().splitlines()]
    assert [seen[0]["event"], seen[-1]["event"]] == ["setup", "end"]
    starts = {event["trial"]: event["density"] for event in seen if event["event"] == "start"}
    assert sorted(starts) == ids
    assert sorted(starts.values()) == [0.2, 0.5]
    for trial in ids:
        own = [event for event in seen if event.get("trial") == trial]
        assert [own[0]["event"], own[-1]["event"]] == ["start", "complete"]
        rows = [event for event in own if event["event"] == "result"]
        assert [(row["stage"], row["epoch"]) for row in rows][-2:] == [("finetune", 0), ("finetune", 1)]
        assert [row["training_iteration"] for row in rows][-2:] == [3, 4]
        assert rows[-1]["density"] == pytest.approx(starts[trial], abs=1e-3)
        assert 0 < rows[-1]["val_accuracy"] <= 1
        (events,) = (here / "results" / "small" / "logs" / "tensorboard" / trial).iterdir()
        assert events.name.startswith("events.out.tfevents")
        assert b"val_accuracy" in events.read_bytes()
