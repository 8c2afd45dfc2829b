"""The parts of the page that are text: the best value, the time that is left, failures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.report.page import report_html
from sweeper.report.sections import FAILURES_LISTED, problems, state
from sweeper.report.time_left import time_left
from sweeper.results.report import Standing
from tests.sweeper.report.made_sweeps import made


@pytest.mark.parametrize(("direction", "best"), [("maximize", "95.13 %"), ("minimize", "90.31 %")])
def test_the_best_value_is_by_the_direction(direction: str, best: str, tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", direction=direction)
    values = gathered.sweep.trials["val_accuracy"]
    assert best == f"{100 * (values.max() if direction == 'maximize' else values.min()):.2f} %"
    assert ("best val accuracy of any cell", best) in state(gathered)["cards"]


def test_the_time_left_counts_what_runs_and_what_has_not_begun(tmp_path: Path) -> None:
    gathered = made(tmp_path / "s", begun=5)
    last = gathered.sweep.trials["ended"].max()
    assert last == "2026-11-28T09:04:00Z"
    standing = Standing("s", 16, done=5, running=3, failed=0, left=8)
    now_s = 1795852800.0 + 2 * 3600  # the first trial began at 08:00 UTC
    found = time_left(replace(gathered, standing=standing, at=now_s))
    assert found == "About 4.4 h left, if trials go on ending as the last 5 did (2.5 an hour)."
    assert time_left(replace(gathered, standing=replace(standing, running=0), at=now_s)) == "Nothing is running."


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
