"""A report takes a stored space as it is, and still refuses what would be wrong or cannot be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweeper
from sweeper import comparison_plot, lineage_plot
from sweeper.cli import COMPLETE, main
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.report.gathered import gathered
from sweeper.results.stored_space import stored_space
from tests.sweeper.command_line import wrong
from tests.sweeper.sweeps import begun, make_space
from tests.upgrade.stored import STORAGE
from trials.storage.sealed import seal_lines

SPACE: dict[str, Any] = {"grid": {"density": [0.5]}, "search": {}, "samples": 1}


def show(folder: Path) -> list[str]:
    return ["--show", folder.name, "--storage", str(folder.parent)]


def stored(folder: Path, fields: dict[str, Any]) -> Path:
    SweepFolder(folder).append({"schema": 1, "space": {**SPACE, **fields}})
    return folder


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"objective": "test_accuracy"}, "selection must never see the test set"),
        ({"objectives": [{"column": "test_loss", "direction": "minimize"}]}, "selection must never see the test set"),
        ({"objective": "status"}, "that column holds text"),
        ({"direction": "sideways"}, "direction is 'sideways', but must be 'maximize' or 'minimize'"),
        ({"objective": 3}, "objective is 3, but must be the name of a column"),
        ({"objectives": 5}, "objectives is 5"),
        ({"objectives": []}, "objectives is []"),
        ({"objectives": [5]}, "objectives[0] is 5"),
        ({"objectives": [{"column": "flops"}]}, "objectives[0].direction is missing"),
        ({"constraints": 5}, "constraints is 5"),
        ({"constraints": ["flops"]}, "constraints[0] is 'flops'"),
        ({"constraints": [{"column": "flops"}]}, "has no bound"),
        ({"constraints": [{"column": "test_accuracy", "at_least": 0.5}]}, "selection must never see the test set"),
        ({"constraints": 2 * [{"column": "flops", "at_most": 1.0}]}, "twice"),
    ],
    ids=str,
)
def test_a_changed_space_is_refused_in_one_line(
    fields: dict[str, Any], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong(capsys, show(stored(tmp_path / "s", fields)), "sweep.yaml was written for another version", part)


@pytest.mark.parametrize("content", [{"schema": 1}, {"schema": 1, "space": None}, {"schema": 1, "space": [1]}], ids=str)
def test_a_file_without_a_space_is_refused_in_one_line(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SweepFolder(tmp_path / "s").append(content)
    wrong(capsys, show(tmp_path / "s"), "sweep.yaml has no space")


@pytest.mark.fault("sweep-file-odd")
@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"schema": [1]}, "schema is [1], but must be a whole number"),
        ({"schema": True}, "schema is True, but must be a whole number"),
        ({"versions": [[1]]}, "versions is [[1]], but must be a version for each library"),
        ({"versions": {"torch": [1]}}, "versions is {'torch': [1]}, but must be a version for each library"),
        ({"versions": {1: "2"}}, "versions is {1: '2'}"),
        ({"data": -1}, "data is -1, but must be a list of data sets"),
        ({"data": float("nan")}, "data is nan, but must be a list of data sets"),
        ({"data": {"dataset": "digits"}}, "but must be a list of data sets"),
        ({"data": ["digits"]}, "data is ['digits'], but must be a list of data sets"),
        ({"commit": {"a": "b"}}, "commit is {'a': 'b'}, but must be text"),
        ({"command": ["sweep"]}, "command is ['sweep'], but must be text"),
        ({"plugins": ["a"]}, "plugins is ['a'], but must be a digest for each plug-in"),
        ({1: "one"}, "which is no mapping by name"),
    ],
    ids=str,
)
@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
def test_a_document_of_another_form_is_refused_in_one_line(
    fields: dict[Any, Any], part: str, last: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, odd = {"schema": 1, "space": make_space(**SPACE).document()}, {"schema": 1, "space": SPACE, **fields}
    path = tmp_path / "s" / "sweep.yaml"
    path.parent.mkdir()
    documents = [good, odd] if last else [odd, good]
    path.write_bytes(seal_lines(b"", yaml.safe_dump_all(documents, explicit_start=True).encode()))
    for command in (
        show(path.parent),
        ["--report", "s", *show(path.parent)[2:]],
        ["--resume", "s", *show(path.parent)[2:]],
    ):
        wrong(capsys, command, f"{path} is damaged (", part, "restore it, or move it away")


def test_what_older_versions_left_out_of_a_document_is_not_missed(tmp_path: Path) -> None:
    SweepFolder(tmp_path / "s").append({"schema": 1, "space": SPACE, "data": None, "commit": None, "versions": {}})
    assert main(show(tmp_path / "s")) == COMPLETE
    assert main(["--report", "s", *show(tmp_path / "s")[2:]]) == COMPLETE


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"objective": "val_loss", "direction": "minimize"},
        {
            "objectives": [
                {"column": "val_accuracy", "direction": "maximize"},
                {"column": "flops", "direction": "minimize"},
            ]
        },
        {"constraints": [{"column": "density", "target": {"field": "density"}, "tolerance": 0.01}]},
    ],
    ids=str,
)
def test_a_space_as_it_is_written_is_shown(fields: dict[str, Any], tmp_path: Path) -> None:
    assert main(show(stored(tmp_path / "s", fields))) == COMPLETE


def test_an_objective_that_no_trial_has_reported_yet_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = make_space(name="s")
    begun(space, tmp_path / "s").next()
    both = [{"column": "val_accuracy", "direction": "maximize"}, {"column": "unit_sparsity", "direction": "maximize"}]
    SweepFolder(tmp_path / "s").append({"space": {**SPACE, "objectives": both}})
    assert main(show(tmp_path / "s")) == COMPLETE
    assert "Pareto" not in capsys.readouterr().out


# --- whatever was changed by hand, every command says so in one line

MISSING = object()

CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "samples of text": ({"samples": "ten"}, "samples is 'ten', but must be a whole number of at least 1"),
    "no samples": ({"samples": 0}, "samples is 0, but must be"),
    "samples of yes": ({"samples": True}, "samples is True, but must be"),
    "a number as grid": ({"grid": 3}, "grid is 3, but must be a mapping"),
    "null as grid": ({"grid": None}, "grid is None, but must be a mapping"),
    "without grid": ({"grid": MISSING}, "grid is missing"),
    "a number as axis": ({"grid": {"density": 3}}, "grid.density is 3, but must be a list of values"),
    "a number as path": ({"grid": {3: [1], "density": [0.5]}}, "grid has the key 3, but keys must be text"),
    "mappings as values": ({"grid": {"density": [{}]}}, "grid.density has {}"),
    "a circle": (
        {"grid": {"a": {"values": [1], "when": {"b": 1}}, "b": {"values": [1], "when": {"a": 1}}}},
        "is circular",
    ),
    "too many cells": ({"grid": {"a": list(range(200)), "b": list(range(200))}}, "grid has 40000 cells"),
    "a number as search": ({"search": 3}, "search is 3, but must be a mapping"),
    "a list as search": ({"search": ["mask_lr"]}, "search is ['mask_lr'], but must be a mapping"),
    "objective of no text": ({"objective": 3}, "objective is 3, but must be the name of a column"),
    "objective of text": ({"objective": "method"}, "objective is 'method', but the trials have 'bip' there"),
    "a text of two lines": (
        {"objective": MISSING, "direction": MISSING, "objectives": "a\nb"},
        "objectives is 'a\\nb'",
    ),
    "a bound from nowhere": (
        {"constraints": [{"column": "density", "target": {"field": "nope"}, "tolerance": 0.1}]},
        "constraints[0] has the field 'nope', but no trial has it",
    ),
    "a bound from a text": (
        {"constraints": [{"column": "density", "at_most": {"field": "model"}}]},
        "constraints[0] has the field 'model', but the trials have 'tiny' there",
    ),
    "a bound on a text": (
        {"constraints": [{"column": "method", "at_most": 1.0}]},
        "constraints[0].column is 'method', but the trials have 'bip' there",
    ),
}
every_change = pytest.mark.parametrize(("fields", "part"), CHANGED.values(), ids=CHANGED)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return shutil.copytree(STORAGE, tmp_path / "storage")


def change(storage: Path, fields: dict[str, Any]) -> Path:
    """Append to the stored population's sweep.yaml its space with other fields, as by hand; return its folder."""
    folder = SweepFolder(storage / "population")
    space = {**(folder.space_document() or {}), **fields}
    folder.append({"schema": 1, "space": {key: value for key, value in space.items() if value is not MISSING}})
    return folder.path


def shows(folder: Path) -> int:
    return main(show(folder))


def cancels(folder: Path) -> int:
    return main(["--cancel", folder.name, "--storage", str(folder.parent)])


def compares(folder: Path) -> int:
    return comparison_plot.main([str(folder), "--to", str(folder.parent / "x.svg")])


def draws_the_lineage(folder: Path) -> int:
    return lineage_plot.main([str(folder), "--to", str(folder.parent / "x.svg")])


COMMANDS = (shows, cancels, compares, draws_the_lineage)


@pytest.mark.parametrize("command", COMMANDS)
@every_change
def test_a_command_on_a_changed_space_ends_in_one_line(
    storage: Path, command: Callable[[Path], int], fields: dict[str, Any], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vl_convert")
    folder = change(storage, fields)
    assert command(folder) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    for each in (f"error: {folder / 'sweep.yaml'} was written", part, "restore it, or move it away"):
        assert each in said.err
    (folder / "sweep.yaml").unlink()  # the way out
    assert main(show(folder)) == COMPLETE


@every_change
def test_a_list_names_a_changed_space_and_goes_on(
    storage: Path, fields: dict[str, Any], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(storage, fields)
    assert main(["--list", "--storage", str(storage)]) == COMPLETE
    methods, population, stopped = capsys.readouterr().out.splitlines()
    assert methods.startswith("methods: 3 cells, ")
    assert stopped.startswith("stopped: 1 cells, ")
    assert population.startswith("population: ")
    assert part in population


@pytest.mark.parametrize(
    "text", ["written: 2026-13-45\n", "[" * 5000, "{", "\x00"], ids=["date", "deep", "open", "nul"]
)
def test_a_file_that_is_no_yaml_is_named_and_the_list_goes_on(
    storage: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (storage / "population" / "sweep.yaml").write_text(text)
    wrong(capsys, show(storage / "population"), "sweep.yaml is damaged")
    assert main(["--list", "--storage", str(storage)]) == COMPLETE
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["methods", "population", "stopped"]
    assert "sweep.yaml is damaged" in lines[1]


def test_an_unchanged_population_passes_every_command(storage: Path) -> None:
    pytest.importorskip("vl_convert")
    for command in COMMANDS:
        assert command(storage / "population") == 0


AMBIGUOUS = [
    *("1e-4", "1E5", "0o10", "0x1F", "010", "08", "1_000", "1:30", "0:0.5", "2:4", "1.", ".5", "-.inf", ".NaN", "~"),
    *("yes", "No", "on", "OFF", "y", "null", "Null", "", " ", "=", "<<", "-", "2026-11-27", "true", "x: y", "# c", "١"),
    *(1, -3, 10**20, 0.1, 1e-5, 1e16, 1.5e300, 5e-324, -0.0, 1e5, True, False, None, [], {}),
]
"""Values whose text YAML 1.1 and 1.2 may read differently."""


def test_sweep_yaml_reads_back_as_written(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path)
    document = {"values": AMBIGUOUS, "keys": {value: i for i, value in enumerate(AMBIGUOUS) if isinstance(value, str)}}
    folder.append(document)
    (read,) = folder.documents()
    assert repr(read) == repr(document)  # repr tells 1, 1.0 and True apart


def test_tables_of_a_report_keep_their_space_and_others_read_it_anew(tmp_path: Path) -> None:
    plan = begun(make_space(search={}, samples=1), tmp_path / "small")
    plan.folder.append({"space": plan.space.document()})
    loaded, reported = sweeper.load(tmp_path / "small"), gathered(tmp_path / "small")
    (tmp_path / "small" / "sweep.yaml").unlink()
    assert stored_space(loaded) is None
    assert stored_space(reported.sweep) == reported.space
