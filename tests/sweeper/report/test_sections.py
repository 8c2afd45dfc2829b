"""The parts of the page that are text: the best value, the time that is left, failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweeper.report.page import report_html
from sweeper.report.sections import FAILURES_LISTED, problems, state
from tests.sweeper.report.made_sweeps import made


@pytest.mark.parametrize(("direction", "best"), [("maximize", "95.13 %"), ("minimize", "90.31 %")])
def test_the_best_value_is_by_the_direction(direction: str, best: str, tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", direction=direction)
    values = gathered.sweep.trials["val_accuracy"]
    assert best == f"{100 * (values.max() if direction == 'maximize' else values.min()):.2f} %"
    assert ("best val accuracy of any cell", best) in state(gathered)["cards"]


def test_failures_are_listed_up_to_a_number_and_all_are_counted(tmp_path: Path) -> None:
    for samples, listed in ((2, 16), (10, FAILURES_LISTED)):
        found = problems(made(tmp_path / f"s{samples}", status=lambda _: "failed", samples=samples))
        assert (found["failed"], len(found["failures"])) == (8 * samples, listed)


@pytest.mark.parametrize("text", ["</script x", "<!--<script", "]]>&lt;"])
def test_the_data_of_the_page_end_no_element_and_begin_no_comment(text: str, tmp_path: Path) -> None:
    """Also without a ``>``, which ``</script `` does not need."""
    page = report_html(made(tmp_path / "s", status=lambda _: "failed", message=text))
    held = page.partition('id="parts"')[2].partition(">")[2].partition("</script>")[0]
    assert json.loads(held)["name"] == "s"
    assert not set(held) & set("<>&")
