"""A report takes a stored space as it is, and still refuses what would be wrong or cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeper.cli import COMPLETE, WRONG_INPUT, main
from sweeper.folder.sweep_folder import SweepFolder
from tests.sweeper.command_line import wrong

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
    """After the line that says how many trials there are."""
    assert main(show(stored(tmp_path / "s", fields))) == WRONG_INPUT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for each in ("error: ", "sweep.yaml was written for another version", part):
        assert each in said


@pytest.mark.parametrize("content", [{"schema": 1}, {"schema": 1, "space": None}, {"schema": 1, "space": [1]}], ids=str)
def test_a_file_without_a_space_is_refused_in_one_line(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SweepFolder(tmp_path / "s").append(content)
    wrong(capsys, show(tmp_path / "s"), "sweep.yaml has no space")


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
