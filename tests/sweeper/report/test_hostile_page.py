"""A page of texts that were made to break it: only its own elements, attributes and scripts are in it."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.report import page
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered, gathered_of
from sweeper.report.page import parts, report_html
from sweeper.report.report_tables import trials_shown
from tests.sweeper.report.made_sweeps import made, made_sweep

PIECES = [
    *(
        "</script>",
        "<!--",
        "-->",
        "<script>",
        "<img src=x onerror=alert(1)>",
        "]]>",
        "<b",
        "'",
        '"',
        "\\",
        "`",
        "&amp;",
    ),
    *(
        "{{x}}",
        "{% raw %}",
        "${y}",
        "datum['x'] || true",
        "a.b[0]",
        "\x00",
        "\x1b[31m",
        "\u2028",
        "\r\n",
        "=1+1",
        "ü模型",
    ),
]
HOSTILE = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)

FIELDS = (
    "trial",
    "cell",
    "error_type",
    "error_message",
    "method",
    "dataset",
    "host",
    "device",
    "data",
    "commit",
    "status",
)


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, tuple[str, ...]]] = set()
        self.scripts: list[str] = []
        self.links: set[str] = set()
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add((tag, tuple(name for name, _ in attrs if name not in ("hidden", "open"))))
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}
        self._script = tag == "script"
        self.scripts += [""] if self._script else []

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data[:50]}")


def elements(found: Gathered) -> Elements:
    parsed = Elements()
    parsed.feed(report_html(found))
    parsed.close()
    return parsed


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Elements:
    folder = tmp_path_factory.mktemp("plain") / "made"
    return elements(made(folder, status=lambda n: "failed" if n % 2 else "complete", samples=8))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE, other=HOSTILE)
def test_hostile_texts_add_no_element_and_no_script(
    plain: Elements, tmp_path_factory: pytest.TempPathFactory, text: str, other: str
) -> None:
    sweep = made_sweep(
        tmp_path_factory.mktemp("hostile") / "made", methods=(text, "imp"), message=other, about=text,
        layers=(other, "fc"), status=lambda n: "failed" if n % 2 else "complete", samples=8,
    )  # fmt: skip
    for name in FIELDS:
        values = enumerate(sweep.trials[name])
        sweep.trials[name] = [f"{value}{other}" if number % 3 else value for number, value in values]
    found = elements(gathered_of(sweep))
    assert found.found <= plain.found
    assert found.links == plain.links
    assert found.scripts[1:] == plain.scripts[1:]
    assert set(json.loads(found.scripts[0])) == set(json.loads(plain.scripts[0]))


def test_a_long_error_is_cut_and_a_terminals_colours_are_left_out(tmp_path: Path) -> None:
    text = "\x1b[31mno\x1b[0m device\x00: " + "x" * 5_000_000
    found = made(tmp_path / "made", message=text, status=lambda n: "failed")
    assert len(report_html(found)) < 2e6
    shown = trials_shown(found)["error_message"]
    assert set(shown) == {f"no device: {'x' * 489}… (5,000,011 characters)"}
    assert "5,000,011 characters" in parts(found)["sections"]["problems"]
    assert found.sweep.trials["error_message"].str.len().min() == len(text)


def test_a_figure_that_json_cannot_hold_takes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(name: str, found: Gathered) -> Figure:
        value = math.nan if name == "slices" else object() if name == "lineage" else 1.0
        return Figure(name, name, "", {"mark": "point", "height": value}, pd.DataFrame({"a": [1]}))

    monkeypatch.setattr(page, "draw_figure", drawn)
    found = parts(made(tmp_path / "made"))
    assert "pareto_front" in found["figures"]
    assert not {"slices", "lineage"} & set(found["figures"])
    assert found["sections"]["absent"].count("a fault of this program") == 2
