"""The copy of a sweep that optuna-dashboard shows."""

from __future__ import annotations

import errno
import io
import json
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from sweeper.dashboard import serve, serving, write_copy
from sweeper.dashboard.summary import summary_name
from sweeper.folder.sweep_folder import Record, SweepFolder
from tests.sweeper.pruned import KINDS, Drivers, space_of
from tests.sweeper.sweeps import begun, fail, make_space, run_out, searching
from tests.trials.processes import wait_for
from trials.errors import UserError
from trials.storage import files
from trials.storage.place import Place


def studies_of(folder: SweepFolder) -> dict[str, optuna.Study]:
    """The studies of the cells; that of the whole sweep is tested in test_summary_study."""
    storage = JournalStorage(JournalFileBackend(str(folder.tables / "optuna.journal")))
    names = set(optuna.get_all_study_names(storage)) - {summary_name(folder)}
    return {name: optuna.load_study(study_name=name, storage=storage) for name in names}


def test_the_copy_equals_the_studies(tmp_path: Path) -> None:
    drivers = Drivers(space_of(KINDS["halving"], samples=5), tmp_path).go()
    drivers.plan.folder.append({"space": drivers.space.document()})
    write_copy(drivers.plan.folder)
    studies = studies_of(drivers.plan.folder)
    assert set(studies) == set(drivers.plan._searches)
    for cell, study in drivers.plan._searches.items():
        for mine, copied in zip(study.study.trials, studies[cell].trials, strict=True):
            assert copied.state == mine.state
            assert copied.params == mine.params
            assert copied.values == mine.values
            assert copied.intermediate_values == mine.intermediate_values
        assert studies[cell].metric_names == ["val_accuracy"]


def test_the_copy_equals_the_studies_where_trials_fail(tmp_path: Path) -> None:
    """A trial with retries left goes on, one without has failed, as has one without its objective."""
    pruner = {"name": "median", "n_startup_trials": 1}
    plan = begun(space_of(pruner, samples=3, retries=1, grid={"density": [0.5]}), tmp_path)
    plan.folder.append({"space": plan.space.document()})
    trials = [assignment.trial_id for assignment in iter(plan.next, None)]
    for trial_id, failures in zip(trials, (1, 2, 0), strict=True):
        attempt, _ = plan._records[trial_id].folder.begin()
        row = {"stage": "finetune", "level": 0, "epoch": 1, "stage_id": None, "val_accuracy": 0.5}
        attempt.commit(checkpoint={}, rows={"epochs": [row]}, progress={}, seconds=0.0)
        attempt.end("failed" if failures else "complete", failures=failures, result={"epochs": 1})
    (study,) = begun(plan.space, tmp_path)._searches.values()
    write_copy(plan.folder)
    (copied,) = studies_of(plan.folder).values()
    shown = [(trial.state, trial.params, trial.values, trial.intermediate_values) for trial in copied.trials]
    assert shown == [(t.state, t.params, t.values, t.intermediate_values) for t in study.study.trials]
    assert [trial.state.name for trial in copied.trials] == ["RUNNING", "FAIL", "FAIL"]


def test_the_copy_follows_the_sweep(tmp_path: Path) -> None:
    space = searching("random", 3, grid={"density": [0.5]}, retries=0, constraints=[{"column": "flops", "at_most": 1}])
    plan = begun(space, tmp_path)
    plan.folder.append({"space": space.document()})
    first, second = plan.next(), plan.next()
    assert first is not None
    assert second is not None
    copy = write_copy(plan.folder)

    def states() -> list[str]:
        return [trial.state.name for trial in studies_of(plan.folder)["density=0.5"].trials]

    assert states() == ["WAITING", "WAITING"]
    fail(plan, first.trial_id)
    attempt, _ = plan._records[second.trial_id].folder.begin()
    copy.refresh()
    assert states() == ["FAIL", "RUNNING"]
    attempt.end("complete", result={"val_accuracy": 0.5, "flops": 3})
    plan.next()
    copy.refresh()
    assert states() == ["FAIL", "COMPLETE", "WAITING"]
    trial = studies_of(plan.folder)["density=0.5"].trials[1]
    assert (trial.values, trial.constraints) == ([0.5], {"flops<=": 2.0})
    assert trial.user_attrs["trial"] == second.trial_id
    assert len(write_copy(plan.folder).space.cells()) == 1
    assert states() == ["FAIL", "COMPLETE", "WAITING"]


def test_a_sweep_without_search_is_shown_too(tmp_path: Path) -> None:
    objectives = [{"column": "val_accuracy", "direction": "maximize"}, {"column": "flops", "direction": "minimize"}]
    plan = begun(make_space(objectives=objectives), tmp_path)
    plan.folder.append({"space": plan.space.document()})
    run_out(plan)
    write_copy(plan.folder)
    assert {cell: len(study.trials) for cell, study in studies_of(plan.folder).items()} == {
        "density=0.5": 1, "density=0.2": 1,
    }  # fmt: skip


def test_it_is_served_on_loopback_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = begun(searching("random", 2), tmp_path / "sweep")
    plan.folder.append({"space": plan.space.document()})
    run_out(plan)
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 50000 10.0.0.2 22")
    servers: list[Any] = []
    bind = serving._bind
    monkeypatch.setattr(serving, "_bind", lambda app, port: servers.append(bind(app, port)) or servers[0])
    said = io.StringIO()
    thread = threading.Thread(
        target=serve, args=(tmp_path / "sweep", Console(file=said, width=200)), kwargs={"port": 0}
    )
    thread.start()
    wait_for(lambda: "shows sweep" in said.getvalue(), "the server to start")
    host, port = servers[0].server_address[:2]
    assert host == "127.0.0.1"
    wait_for(lambda: f"ssh -L {port}:127.0.0.1:{port} " in said.getvalue(), "the line that forwards the port")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as answer:
        names = {study["study_name"] for study in json.load(answer)["study_summaries"]}
    assert names == {"density=0.5", "density=0.2", "(all points of sweep)"}
    foreign = urllib.request.Request(f"http://127.0.0.1:{port}/api/studies", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="421") as refused:
        urllib.request.urlopen(foreign, timeout=10)
    refused.value.close()
    servers[0].shutdown()
    thread.join(10)
    assert not thread.is_alive()


def test_a_storage_that_fails_for_a_while_is_followed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = begun(searching("random", 1, grid={"density": [0.5]}), tmp_path / "sweep")
    plan.folder.append({"space": plan.space.document()})
    copy = write_copy(plan.folder)
    run_out(plan)
    tried: list[bool] = []
    records = SweepFolder.records

    def broken(folder: SweepFolder) -> list[Record]:
        tried.append(len(tried) not in (0, 1, 3))
        if not tried[-1]:
            raise OSError("Stale file handle")
        return records(folder)

    monkeypatch.setattr(SweepFolder, "records", broken)
    monkeypatch.setattr(serving, "REFRESH_EVERY_S", 0.01)
    over, said = threading.Event(), io.StringIO()
    thread = threading.Thread(target=serving._follow, args=(copy, over, Console(file=said, width=200)))
    thread.start()
    wait_for(lambda: len(tried) > 4, "the storage to be read again")
    over.set()
    thread.join(10)
    assert said.getvalue().count("sweep could not be read (Stale file handle)") == 2  # once per outage
    assert [trial.state.name for trial in studies_of(plan.folder)["density=0.5"].trials] == ["COMPLETE"]


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a sweep's folder"):
        write_copy(SweepFolder(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


@pytest.mark.fault("read-only-storage")
def test_a_sweep_that_cannot_be_written_is_shown_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = begun(make_space(grid={"density": [0.5]}), tmp_path)
    plan.folder.append({"space": plan.space.document()})
    run_out(plan)

    def read_only(folder: Place) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    monkeypatch.setattr(files, "require_writable", read_only)
    before = sorted(tmp_path.rglob("*"))
    assert optuna.get_all_study_names(write_copy(plan.folder).storage)
    assert sorted(tmp_path.rglob("*")) == before


def answered(method: str = "GET", **headers: str) -> tuple[str, dict[str, str]]:
    """How a guarded application answers: status and headers."""
    begun: list[tuple[str, dict[str, str]]] = []

    def app(environ: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"shown"]

    guarded = serving.guarded(app)
    environ = {"REQUEST_METHOD": method, **{f"HTTP_{name.upper()}": value for name, value in headers.items()}}
    body = b"".join(guarded(environ, lambda status, given: begun.append((status, dict(given)))))
    assert (body == b"shown") == (begun[0][0] == "200 OK")
    return begun[0]


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LocalHost:9", "[::1]:8080"])
def test_pages_of_this_machine_are_answered(host: str) -> None:
    status, headers = answered(host=host)
    assert status == "200 OK"
    assert headers["X-Frame-Options"] == "DENY"
    assert answered("POST", host=host, origin=f"http://{host}", sec_fetch_site="same-origin")[0] == "200 OK"
    assert answered("POST", host=host)[0] == "200 OK"  # no browser


@pytest.mark.fault("foreign-page")
@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost,evil.example", "10.0.0.1"]
)
def test_requests_that_name_another_host_are_refused(host: str) -> None:
    assert answered(host=host)[0].startswith("421 ")
    assert answered("POST", host=host, origin=f"http://{host}")[0].startswith("421 ")


@pytest.mark.fault("foreign-page")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_sites_may_not_change_anything(method: str) -> None:
    own = "127.0.0.1:8080"
    for origin in ("http://evil.example", "null", "https://127.0.0.1:8080", "http://127.0.0.1:9999", ""):
        assert answered(method, host=own, origin=origin)[0].startswith("403 ")
    for site in ("cross-site", "same-site"):
        assert answered(method, host=own, sec_fetch_site=site)[0].startswith("403 ")
