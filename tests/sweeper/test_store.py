"""A sweep whose storage is a bucket, and the check that every machine shares the storage."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper.cli import COMPLETE, main
from sweeper.dashboard import write_copy
from sweeper.folder.sweep_folder import SweepFolder
from tests.machines import several_machines
from tests.sweeper.on_ray import ROOT, SPACE
from tests.sweeper.sweeps import run_space, searching
from tests.trials.buckets import prefix, served
from trials.errors import UserError
from trials.storage.place import place

SETTINGS = ("--set", "grid.seed=[0]", "--set", "trial.prune.epochs=1", "--samples", "1")


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[None]:
    with served():
        yield


@pytest.fixture(scope="module")
def ray(bucket: None) -> Iterator[Any]:
    """A Ray of two simulated machines, whose processes inherit the settings that reach the bucket."""
    from sweeper.execution.on_ray import cluster

    machines = several_machines({"num_cpus": 1, "include_dashboard": False})
    machines.add_node(num_cpus=1)
    cluster.ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")
    yield cluster.ray
    cluster.ray.shutdown()
    machines.shutdown()


def test_a_sweep_in_a_bucket_is_the_sweep_on_a_path(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SPACE)
    storage = str(prefix("sweeps"))
    for where in (storage, "results"):
        assert main(["--space", "small.yaml", *SETTINGS, "--storage", where]) == COMPLETE
    there, here = sweeper.load(f"{storage}/small"), sweeper.load("results/small")
    for frame in ("trials", "epochs", "layers"):
        one, other = (
            getattr(tables, frame).drop(columns=["seconds", "started", "ended"], errors="ignore")
            for tables in (there, here)
        )
        assert one.equals(other), frame
    assert there.trials["status"].tolist() == 2 * ["complete"]
    folder = SweepFolder(place(f"{storage}/small"))
    assert folder.stop.exists() is False
    capsys.readouterr()
    assert main(["--space", "small.yaml", *SETTINGS, "--storage", storage]) == COMPLETE
    again = sweeper.load(f"{storage}/small")
    assert again.trials.equals(there.trials)
    command = [sys.executable, str(ROOT / "sweep.py"), "--show", "small", "--storage", storage]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (shown.returncode, shown.stderr) == (COMPLETE, "")
    assert "small: 2 cells, 2 done; 2 trials, 2 done" in shown.stdout
    assert "2 trials, 2 done" in capsys.readouterr().out


def test_a_search_in_a_bucket_begins_with_an_earlier_one_and_is_copied_for_the_dashboard(tmp_path: Path) -> None:
    copied = []
    for storage in (prefix("warm"), tmp_path):
        run_space(searching("random", 3), storage / "earlier")
        folder = run_space(searching("tpe", 2, from_sweep="earlier"), storage / "later")
        copy = write_copy(folder).storage
        studies = {study.study_name: copy.get_all_trials(study._study_id) for study in copy.get_all_studies()}
        copied.append({cell: sorted(str((t.params, t.values)) for t in trials) for cell, trials in studies.items()})
        assert len(json.loads((folder.path / "warm.json").read_bytes())["cells"]["density=0.5"]["observations"]) == 3
    assert copied[0] == copied[1]
    assert sorted(map(len, copied[0].values())) == [2, 2, 4], "a study of each cell, and one of all points"


def test_machines_that_share_the_storage(ray: Any, tmp_path: Path) -> None:
    from sweeper.execution.on_ray.requirements import require_shared

    for where in (tmp_path / "sweep", prefix("shared")):
        where.mkdir(parents=True, exist_ok=True)
        require_shared(where)
        assert not list(where.iterdir())


@pytest.mark.fault("no-access")
def test_a_machine_that_does_not_share_it_is_named(ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver writes to a folder that other machines do not see."""
    from sweeper.execution.on_ray import requirements

    monkeypatch.setattr(requirements, "_write_probe", blind)
    address = ray.nodes()[0]["NodeManagerAddress"]
    with pytest.raises(UserError, match=rf"({address}).*does not: it does not see.*s3://BUCKET/PREFIX"):
        requirements.require_shared(tmp_path)
    monkeypatch.setattr(requirements, "_write_probe", mute)
    monkeypatch.setattr(requirements, "STORAGE_LAG_S", 0.1)
    with pytest.raises(UserError, match=r"it does not see what another machine has written|is not seen from here"):
        requirements.require_shared(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_machine_that_dies_while_it_is_asked_shares_nothing_and_bars_nothing(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper.execution.on_ray import cluster, requirements

    alive = ray.nodes
    listed = [[*alive(), {**alive()[0], "NodeID": "5e" * (len(alive()[0]["NodeID"]) // 2)}]]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: listed.pop() if listed else alive())
    requirements.require_shared(tmp_path)
    assert not listed
    assert not list(tmp_path.iterdir())


def blind(folder: str, names: list[str]) -> str | None:
    """The probe on a machine where another folder has the storage's name."""
    from sweeper.execution.on_ray import requirements

    requirements.STORAGE_LAG_S = 0.1
    return requirements._read(place(f"{folder}-of-its-own"), ["driver"])


def mute(folder: str, names: list[str]) -> str | None:
    """The probe on a machine that reports a write which never reaches the storage."""
    return None
