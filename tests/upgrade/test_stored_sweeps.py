"""Sweeps that were stored by an earlier commit are read, shown, resumed and extended by this one (see README.md)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import sweeper
from sweeper.cli import main
from sweeper.folder.sweep_folder import SweepFolder
from tests.sweeper.command_line import put_in_place_of_ray
from tests.upgrade.stored import (
    EXIT_CODES,
    EXPORTS,
    LARGER,
    PARENT,
    PARENT_CHECKPOINT,
    STORAGE,
    columns,
    command,
    committed,
    expected,
    exported,
    facts,
    shown,
)

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.usefixtures("no_stray_handlers")

every_sweep = pytest.mark.parametrize("name", EXIT_CODES)


def refuse_to_run(*_: Any, **__: Any) -> None:
    pytest.fail("a sweep that is done has begun to run something")


def test_the_storage_holds_every_outcome_of_a_trial() -> None:
    """Two methods that are complete, a third that is complete and pruned, one failure, and a population's lineage."""
    ends = [
        (trial.split("-")[0], content["status"])
        for sweep in expected()["sweeps"].values()
        for trial, content in sweep["trials"].items()
    ]
    assert sorted(set(ends)) == [
        ("bip", "complete"),
        ("greg1", "complete"),
        ("one_shot", "complete"),
        ("one_shot", "failed"),
        ("one_shot", "pruned"),
    ]
    statuses = [status for _, status in ends]
    assert (statuses.count("failed"), statuses.count("pruned")) == (1, 1)
    assert {place[1] for place in expected()["sweeps"]["population"]["lineage"]} == {0, 1}


@every_sweep
def test_the_tables_hold_the_stored_measurements(storage: Path, name: str) -> None:
    recorded = expected()["sweeps"][name]
    assert sweeper.load(storage / name).damaged == ()
    assert facts(storage / name) == {"trials": recorded["trials"], "lineage": recorded["lineage"]}
    for table, names in columns(storage / name).items():
        assert set(recorded["columns"][table]) <= set(names), table


@every_sweep
def test_the_report_is_the_same(storage: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["--show", name, "--storage", str(storage)]) == 0
    assert shown(storage, capsys.readouterr().out) == expected()["sweeps"][name]["show"]


def test_sweep_py_shows_it(storage: Path) -> None:
    words = [sys.executable, str(ROOT / "sweep.py"), "--show", "methods", "--storage", str(storage)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown(storage, done.stdout) == expected()["sweeps"]["methods"]["show"]


@every_sweep
def test_the_same_command_again_runs_nothing(storage: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before, told = committed(storage), (storage / name / "sweep.yaml").read_bytes()
    put_in_place_of_ray(monkeypatch, refuse_to_run)
    assert main(command(storage, name)) == EXIT_CODES[name]
    assert committed(storage) == before
    assert (storage / name / "sweep.yaml").read_bytes().startswith(told)
    begun, *_ = SweepFolder(storage / name).documents()
    assert begun["commit"] == "6d359b90c5d391e0cb288bffcddd63c700c1ec67"
    recorded = expected()["sweeps"][name]
    assert facts(storage / name) == {"trials": recorded["trials"], "lineage": recorded["lineage"]}  # now from tables/


@pytest.mark.parametrize("name", ["methods", "stopped"])
def test_a_larger_sweep_adds_what_it_would_have_added(storage: Path, ran: list[str], name: str) -> None:
    """Samplers rebuilt from the storage ask for the trials that they asked for when it was written."""
    before, recorded = committed(storage), expected()["sweeps"][name]
    assert main(command(storage, name, *LARGER[name])) == EXIT_CODES[name]
    assert sorted(ran) == recorded["added"]
    assert_the_old_stands(storage, name, before)
    added = without(facts(storage / name)["trials"], recorded["trials"])
    assert sorted(added) == recorded["added"]
    assert {trial["attempts"] for trial in added.values()} == {1}
    assert {trial["status"] for trial in added.values()} <= {"complete", "failed"}
    assert [name.split("-")[0] for name, trial in added.items() if trial["status"] == "failed"] == (
        ["one_shot"] if name == "methods" else []
    )


def test_what_would_count_otherwise_is_not_mixed(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resumed as it is, the population would keep another number of weights; the message says how it goes on."""
    before = committed(storage)
    extended = command(storage, "population", "--set", "pbt.generations=3")
    assert main(extended) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "revision 1 of its rounding, but this version computes revision 2" in said
    assert "with rounding: released" in said
    assert committed(storage) == before


@pytest.mark.usefixtures("ray")
def test_a_population_goes_on_from_the_stored_checkpoint(storage: Path) -> None:
    before, recorded = committed(storage), expected()["sweeps"]["population"]
    assert main(command(storage, "population", *LARGER["population"])) == 0
    gone = {PARENT_CHECKPOINT}  # deleted, as the next generation has ended
    assert_the_old_stands(storage, "population", without(before, gone))
    assert not gone & committed(storage).keys()
    added = without(facts(storage / "population")["trials"], recorded["trials"])
    assert sorted(added) == recorded["added"]
    assert {(trial["status"], trial["attempts"]) for trial in added.values()} == {("complete", 1)}
    tables = sweeper.load(storage / "population")
    parents = tables.lineage.set_index("trial")["parent_trial"]
    for trial in added:
        assert parents[trial] == PARENT
        rows, inherited = (history(tables, name) for name in (trial, PARENT))
        assert len(rows) == len(inherited) + 1
        pd.testing.assert_frame_equal(rows.head(len(inherited)), inherited)


def history(tables: sweeper.Sweep, trial: str) -> pd.DataFrame:
    """A trial's rows by epoch, with their seconds, which would differ if an epoch were computed again."""
    rows = tables.epochs[tables.epochs["trial"] == trial].reset_index(drop=True)
    return rows[["stage", "epoch", "train_loss", "val_loss", "val_accuracy", "density", "seconds"]]


def assert_the_old_stands(storage: Path, name: str, before: dict[str, bytes]) -> None:
    """Assert that no byte of old files and no old trial in the tables changed, and no shared trial was computed."""
    after = committed(storage)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if path.startswith("stages/") and path not in before]
    found, recorded = facts(storage / name)["trials"], expected()["sweeps"][name]["trials"]
    assert {trial: found[trial] for trial in recorded} == recorded


def without(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}


@pytest.mark.parametrize(("trial", "form"), [(trial, form) for trial, forms in EXPORTS.items() for form in forms])
def test_a_stored_network_is_written_as_it_was(tmp_path: Path, trial: str, form: str) -> None:
    assert exported(STORAGE / trial, form, tmp_path / "network.pt") == expected()["exports"][f"{trial} {form}"]
