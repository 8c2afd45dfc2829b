"""What the four commands that draw a sweep share: they refuse what cannot be drawn before they read anything."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper.report.figure import Figure
from sweeper.report.picture_file import PictureSize, picture_size
from sweeper.report.plot_command import Drawn, plot, plot_parser
from trials.errors import UserError

COMMANDS = ("comparison_plot", "lineage_plot", "regrowth_plot", "single_layer_plot")


FIGURE = Figure(
    name="some",
    title="Some",
    text="one point",
    spec={"data": {"name": "rows"}, "mark": "point", "encoding": {"x": {"field": "n", "type": "quantitative"}}},
    rows=pd.DataFrame({"n": [1]}),
)


def ends(draw: Any, to: Path) -> int:
    return plot(draw, plot_parser("some_plot", "Draw.").parse_args(["a sweep", "--to", str(to)]))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_where_no_picture_can_lie_is_refused_first(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module(f"sweeper.{name}")
    nowhere = tmp_path / "nowhere"
    missing = f"there is no folder {str(nowhere)!r}: make it"
    for to, why in ((nowhere / "x.png", missing), (tmp_path, "this is a folder")):
        assert command.main(["no sweep", "--to", str(to)]) == 2
        said = f"error: --to is {str(to)!r}, but must be a file in a folder that can be written, and {why}"
        assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("name", COMMANDS)
def test_without_the_library_nothing_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    command = importlib.import_module(f"sweeper.{name}")
    assert command.main(["no sweep", "--to", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err == (
        "error: a picture needs vl-convert, which is not installed: pip install 'sparsity-sweeper[plots]'\n"
    )


def test_what_is_printed_follows_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = Drawn(FIGURE, {"name": ["a"], "n": ["1"]}, ("name",), ["said"])
    assert ends(lambda _: drawn, tmp_path / "x.csv") == 0
    assert (tmp_path / "x.csv").read_text() == "n\n1\n"
    assert capsys.readouterr().out.splitlines() == ["name  n", "a     1", "said"]
    assert ends(lambda _: drawn, tmp_path / "x.what") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "x.what', but must end in one of .pdf, .png, .svg, .csv" in said.err


@pytest.mark.parametrize(
    ("option", "text", "rule"),
    [
        ("--width", "3.25cn", "must be a length from 72 to 2880 points"),
        ("--width", "0in", "must be a length"),
        ("--width", "nan", "must be a length"),
        ("--height", "-3in", "must be a length"),
        ("--height", "100in", "must be a length"),
        ("--font-size", "8em", "must be a length from 3 to 48 points"),
    ],
)
def test_a_size_that_is_none_is_refused_before_anything_is_read(
    option: str, text: str, rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["no sweep", "--to", str(tmp_path / "x.png"), f"{option}={text}"]
    assert plot(lambda _: pytest.fail("read"), plot_parser("some_plot", "Draw.").parse_args(words)) == 2
    assert f"error: {option} is {text!r}, but {rule}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "points"),
    [("3.25in", 234), ("84mm", 84 / 25.4 * 72), ("8.4cm", 84 / 25.4 * 72), ("240pt", 240), ("240", 240)],
)
def test_a_length_is_given_in_the_units_of_journals(text: str, points: float) -> None:
    assert picture_size(text, None, "9pt") == PictureSize(pytest.approx(points), None, 9)
    assert picture_size(None, text, None).height_pt == pytest.approx(points)


def test_a_fault_of_the_program_is_not_taken_for_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def wrong(error: Exception) -> Any:
        def draw(_: object) -> Drawn:
            raise error

        return draw

    assert ends(wrong(UserError("no such cell")), tmp_path / "x.png") == 2
    with pytest.raises(ValueError, match="a fault"):
        ends(wrong(ValueError("a fault")), tmp_path / "x.png")
