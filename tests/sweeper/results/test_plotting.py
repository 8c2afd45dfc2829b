"""What the four commands that draw a sweep share: they refuse what cannot be drawn before they read anything."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeper.report.plot_command import Drawn, plot, plot_parser
from trials.errors import UserError

COMMANDS = ("comparison_plot", "lineage_plot", "regrowth_plot", "single_layer_plot")


class Figure:
    """Writes nothing but its size."""

    def savefig(self, to: Path, dpi: int) -> None:
        if to.suffix == ".what":
            raise ValueError("format 'what' is not supported")
        to.write_text(str(dpi))


def ends(draw: Any, to: Path) -> int:
    return plot(draw, plot_parser("some_plot", "Draw.").parse_args(["a sweep", "--to", str(to)]))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_where_no_picture_can_lie_is_refused_first(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module(f"sweeper.{name}")
    for to in (tmp_path / "nowhere" / "x.png", tmp_path):
        assert command.main(["no sweep", "--to", str(to)]) == 2
        said = f"error: --to is {str(to)!r}, but must be a file in a folder that can be written\n"
        assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", COMMANDS)
def test_without_matplotlib_nothing_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command = importlib.import_module(f"sweeper.{name}")
    assert command.main(["no sweep", "--to", str(tmp_path / "x.png")]) == 2
    assert capsys.readouterr().err == (
        "error: a plot needs matplotlib, which is not installed: pip install 'sparsity-sweeper[plots]'\n"
    )


def test_what_is_printed_follows_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Drawn(Figure(), {"name": ["a"], "n": ["1"]}, ("name",), ["said"], dpi=70)
    assert ends(lambda _: drawn, tmp_path / "x.png") == 0
    assert (tmp_path / "x.png").read_text() == "70"
    assert capsys.readouterr().out.splitlines() == ["name  n", "a     1", "said"]
    assert ends(lambda _: drawn, tmp_path / "x.what") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "x.what', but must be a picture that can be written (format 'what' is not supported)" in said.err


def test_a_fault_of_the_program_is_not_taken_for_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def wrong(error: Exception) -> Any:
        def draw(_: object) -> Drawn:
            raise error

        return draw

    assert ends(wrong(UserError("no such cell")), tmp_path / "x.png") == 2
    with pytest.raises(ValueError, match="a fault"):
        ends(wrong(ValueError("a fault")), tmp_path / "x.png")
