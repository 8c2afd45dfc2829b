"""``--report NAME --figure FIGURE --to FILE``: what is written, and what is refused before anything is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from sweeper.cli import COMPLETE, WRONG_INPUT, main
from tests.sweeper.report.drawn import points_of_pdf
from tests.upgrade.stored import STORAGE


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return shutil.copytree(STORAGE, tmp_path / "storage")


def run(storage: Path, *words: str) -> int:
    return main(["--storage", str(storage), "--report", "methods", *words])


def test_a_figure_is_written_as_a_picture_and_as_numbers(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vl_convert")
    to = tmp_path / "fig3.pdf"
    assert (
        run(storage, "--figure", "accuracy_density", "--to", str(to), "--width", "3.25in", "--height", "5cm")
        == COMPLETE
    )
    assert points_of_pdf(to.read_bytes()) == pytest.approx((234, 5 / 2.54 * 72), abs=0.6)
    assert capsys.readouterr().out.startswith(f"{to}\n")
    assert not (storage / "methods" / "report.html").exists()
    numbers = tmp_path / "fig.csv"
    assert run(storage, "--figure", "pareto_front", "--to", str(numbers), "--with", "x=parameters") == COMPLETE
    assert {"series", "accuracy_percent", "flops", "front_parameters"} <= set(pd.read_csv(numbers))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--figure", "accuracy", "--to", "x.pdf"], "--figure is 'accuracy', but must be one of: accuracy_density"),
        (["--figure", "pareto_front"], "--to FILE is missing"),
        (["--figure", "pareto_front", "--to", "x.jpg"], "must end in one of .pdf, .png, .svg, .csv"),
        (["--figure", "pareto_front", "--to", "no/where.csv"], "can be written, and there is no folder 'no': make it"),
        (["--to", "no/where.html"], "can be written, and there is no folder 'no': make it"),
        (["--to", "methods"], "can be written, and this is a folder: give a file's name in it"),
        (["--to", "x.pdf"], "but a report is a page and must end in .html or .htm (pictures and numbers: add --figure"),
        (["--to", "x"], "but a report is a page and must end in .html or .htm"),
        (["--figure", "pareto_front", "--to", "x.csv", "--width", "wide"], "--width is 'wide', but must be a length"),
        (["--figure", "pareto_front", "--to", "x.csv", "--with", "flops"], "--with is 'flops', but must be NAME=VALUE"),
        (["--figure", "pareto_front", "--to", "x.csv", "--with", "z=1"], "was given z, but takes x, accuracy, by"),
        (["--figure", "pareto_front", "--to", "x.csv", "--with", "x=a", "--with", "x=b"], "x 2 times, but takes one"),
        (["--figure", "pareto_front", "--to", "x.csv", "--with", "by=densty"], "by is 'densty', but must be one of"),
        (["--width", "3in"], "--width is '3in', but belongs to --figure FIGURE"),
        (["--with", "x=1"], "--with is 'x=1', but belongs to --figure FIGURE"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    storage: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(storage)
    assert run(storage, *words) == WRONG_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(storage.glob("x.*"))


def test_a_figure_needs_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--figure", "pareto_front", "--to", "x.pdf"]) == WRONG_INPUT
    assert "belongs to --report NAME" in capsys.readouterr().err
