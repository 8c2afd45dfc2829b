"""The command line: how much work a damaged file of a sweep costs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeper
from sweeper.cli import COMPLETE, FAILURES, main
from tests.sweeper.command_line import attempts, figures, sweep, wrong
from tests.trials.folders import state_of, the_stage
from tests.trials.sealed_files import document, write_document
from trials.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.usefixtures("here", "no_stray_handlers")


def rows_and_checkpoint(path: Path, trial_id: str) -> tuple[Path, Path]:
    folder = TrialFolder(path / "trials" / trial_id)
    state = folder.state()
    assert state is not None
    commit = state.commits[-1]
    assert commit.checkpoint is not None
    return folder.path / "rows" / commit.rows["epochs"], folder.path / "checkpoint" / commit.checkpoint


def test_a_damaged_row_file_is_set_aside_and_written_again(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    path = here / "results" / "small"
    assert sweep() == COMPLETE
    before = figures(path)
    rows, _ = rows_and_checkpoint(path, ran[0])
    rows.write_bytes(rows.read_bytes()[:-1])
    capsys.readouterr()
    assert sweep() == COMPLETE
    assert f"{rows.name}.damaged" in capsys.readouterr().out
    assert rows.with_name(f"{rows.name}.damaged").exists()
    assert len(ran) == 4
    assert figures(path).equals(before)


def test_damaged_rows_without_a_whole_checkpoint_cost_one_trial(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    path = here / "results" / "small"
    assert sweep() == COMPLETE
    before, names = figures(path), list(ran)
    for file in rows_and_checkpoint(path, ran[1]):
        file.write_bytes(b"")
    capsys.readouterr()
    assert sweep() == COMPLETE
    assert capsys.readouterr().out.count(".damaged") >= 1
    assert ran[4:] == [names[1]]
    assert attempts(path) == {name: 1 + (name == names[1]) for name in names}
    assert figures(path).equals(before)


def test_a_damaged_state_costs_nothing_that_is_committed(here: Path, ran: list[str]) -> None:
    path = here / "results" / "small"
    assert sweep() == COMPLETE
    before = figures(path)
    state = path / "trials" / ran[2] / "state.json"
    state.write_bytes(state.read_bytes()[:40])
    assert sweep() == COMPLETE
    assert state.with_name("state.json.damaged").exists()
    assert ran[4:] == [ran[2]]
    assert figures(path).equals(before)


def test_a_damaged_config_costs_nothing_that_is_committed(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    path = here / "results" / "small"
    assert sweep() == COMPLETE
    before = figures(path)
    config = path / "trials" / ran[3] / "config.json"
    config.write_bytes(b"{}")
    capsys.readouterr()
    assert sweep() == COMPLETE
    assert "config.json.damaged" in capsys.readouterr().out
    assert attempts(path) == dict.fromkeys(ran, 1)
    assert figures(path).equals(before)


@pytest.mark.parametrize(
    "change",
    [
        *[{"samples": 0, key: value} for key, value in (("params", None), ("grid", []), ("attrs", None))],
        {"samples": 0, "attrs": {"pbt": None}},
        {"samples": "x"},
        {"config": None},
        {"config": "file_hashes"},
        {"revisions": {"method": "two"}},
    ],
    ids=str,
)
def test_a_config_changed_by_hand_is_set_aside(
    change: dict[str, Any], capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    assert sweep() == COMPLETE
    config = here / "results" / "small" / "trials" / ran[3] / "config.json"
    content = document(config)
    if change.get("samples") == 0:
        content["samples"][0] |= {key: value for key, value in change.items() if key != "samples"}
    elif change == {"config": "file_hashes"}:
        content["config"]["file_hashes"] = ["x"]
    else:
        content |= change
    write_document(config, content)
    capsys.readouterr()
    assert main(["--show", "small"]) == COMPLETE
    assert sweep() == COMPLETE
    assert "config.json.damaged" in capsys.readouterr().out


@pytest.mark.parametrize("data", [3, [3], {"a": 1}, [{"dataset": ["a"], "fingerprint": "f"}]], ids=str)
def test_data_of_a_sweep_changed_by_hand_are_refused_in_one_line(
    data: object, capsys: pytest.CaptureFixture[str], here: Path, ran: list[str]
) -> None:
    assert sweep() == COMPLETE
    path = here / "results" / "small" / "sweep.yaml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "data": data}))
    wrong(capsys, ["--resume", "small"], "sweep.yaml", "restore it")


@pytest.mark.parametrize("settings", [[], ["--set", "search=null", "--set", "samples=null"]])
def test_a_config_of_another_version_costs_its_own_trial(
    capsys: pytest.CaptureFixture[str], here: Path, ran: list[str], settings: list[str]
) -> None:
    path = here / "results" / "small"
    assert sweep("--serial", *settings) == COMPLETE
    names = list(ran)
    bad, lost, *_ = names
    shutil.rmtree(path / "trials" / lost)
    (path / "trials" / bad / "state.json").unlink()
    config = path / "trials" / bad / "config.json"
    content = document(config)
    content["config"]["gone_field"] = 1
    write_document(config, content)
    for retry in ([], [], ["--retry-failed"]):
        capsys.readouterr()
        assert sweep("--serial", *settings, *retry) == FAILURES
        assert f"{len(names)} trials, {len(names) - 1} done" in capsys.readouterr().out
        assert ran[len(names) :] == [lost]
        trials = sweeper.load(path).trials.set_index("trial")
        assert trials["status"].to_dict() == {name: "failed" if name == bad else "complete" for name in names}
        assert trials.loc[bad, "failures"] == 2
        assert f"{config} of trial {bad}" in trials.loc[bad, "error_message"]
        assert "gone_field" in trials.loc[bad, "error_message"]


def test_a_damaged_shared_network_is_trained_again_only_when_it_is_wanted(here: Path, ran: list[str]) -> None:
    assert sweep() == COMPLETE
    stage = the_stage(here / "results")
    for checkpoint in (stage / "checkpoint").iterdir():
        checkpoint.write_bytes(b"damaged")
    state = state_of(stage)
    assert sweep() == COMPLETE
    assert TrialFolder(stage).state() == state
    assert sweep("--samples", "3") == COMPLETE
    again = state_of(stage)
    assert (again.status, again.attempt) == ("complete", 2)
    assert again.result == state.result
    assert list((stage / "checkpoint").glob("*.damaged"))
    assert attempts(here / "results" / "small") == dict.fromkeys(ran, 1)
