"""A served report in a real browser: rows come without a reload, and what the reader has chosen stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.folder.sweep_folder import SweepFolder
from sweeper.report import served
from sweeper.search.plan import Plan
from tests.sweeper.report.conftest import Opened
from tests.sweeper.report.serving import begun_sweep, one_more, serving
from tests.trials.processes import wait_for

Open = Callable[..., Opened]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return begun_sweep(tmp_path / "small")


@pytest.fixture
def address(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(served, "POLL_EVERY_S", 0.05)
    for page in serving(plan.folder.path, monkeypatch):
        yield f"http://127.0.0.1:{page.port}/?token={page.token}"


def trials_shown(page: Any) -> list[str]:
    rows: list[str] = page.locator("#trials tbody tr td:first-child").all_text_contents()
    return rows


def points_drawn(page: Any) -> int:
    """The number of points of the figure that is drawn."""
    count: int = page.locator("#plot-accuracy_density g.mark-symbol.role-mark path").count()
    return count


def test_rows_come_without_a_reload_and_choices_stay(plan: Plan, address: str, open_page: Open) -> None:
    opened = open_page(address)
    page = opened.page
    page.evaluate("window.same = true")
    page.locator("#accuracy_density").scroll_into_view_if_needed()
    page.wait_for_selector("#plot-accuracy_density svg")
    assert len(trials_shown(page)) == 1
    assert points_drawn(page) == 1
    page.locator("#trials thead button", has_text="val_accuracy").click()
    page.locator("#trials thead button", has_text="val_accuracy").click()
    page.locator("#trials input[type=search]").fill("complete")
    page.locator("#asked details").first.evaluate("one => (one.open = true)")
    named = [one_more(plan) for _ in range(3)]
    wait_for(lambda: len(trials_shown(page)) == 4, "the rows")
    wait_for(lambda: points_drawn(page) > 1, "the figure")
    assert trials_shown(page)[:3] == named[::-1]  # accuracies grow: the last is first
    assert page.locator("#trials th[aria-sort]").get_attribute("aria-sort") == "descending"
    assert page.locator("#trials input[type=search]").input_value() == "complete"
    assert page.locator("#asked details").first.evaluate("one => one.open")
    assert "4 of 6" in page.locator("#section-state").inner_text()
    assert page.locator("#fresh").inner_text() == "live"
    assert page.evaluate("window.same") is True
    assert opened.errors == []
    assert {url.split("?")[0] for url in opened.requests} == {
        address.split("?")[0],
        f"{address.split('?')[0]}parts.json",
    }


def test_the_keyboard_stays_where_it_is_while_rows_come(plan: Plan, address: str, open_page: Open) -> None:
    page = open_page(address).page
    places = ("#trials thead button >> nth=0", "#asked summary >> nth=1", "#plot-learning_curves select[name=curve]")
    one_more(plan)
    page.locator("#learning_curves").scroll_into_view_if_needed()
    page.wait_for_selector("#plot-learning_curves select[name=curve]")
    for place in places:
        page.locator(place).focus()
        said = page.evaluate("document.activeElement.outerHTML")
        before = len(trials_shown(page))
        one_more(plan)
        wait_for(lambda before=before: len(trials_shown(page)) > before, "the row")  # type: ignore[misc]
        page.wait_for_timeout(500)
        assert page.evaluate("document.activeElement.outerHTML") == said, place


def test_a_search_hides_rows_that_come_and_do_not_match(plan: Plan, address: str, open_page: Open) -> None:
    page = open_page(address).page
    (first,) = trials_shown(page)
    page.locator("#trials input[type=search]").fill(first)
    one_more(plan)
    count = page.locator("#trials [data-part=count]")
    wait_for(lambda: count.inner_text() == "1 of 2 rows", "the row")
    assert trials_shown(page) == [first]


def test_the_page_says_when_it_is_not_up_to_date(
    plan: Plan, address: str, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_page(address)
    fresh = opened.page.locator("#fresh")

    def away(folder: SweepFolder) -> Any:
        raise OSError("Stale file handle <b>")

    with monkeypatch.context() as patch:
        patch.setattr(SweepFolder, "stamps", away)
        wait_for(lambda: "Stale" in fresh.inner_text(), "the page to say so")
        assert fresh.inner_text() == "not up to date: Stale file handle <b>"
    wait_for(lambda: fresh.inner_text() == "live", "the page to be live again")
    opened.page.route("**/parts.json*", lambda route: route.abort())  # as a server that has ended
    wait_for(lambda: fresh.inner_text().startswith("not up to date"), "the page to say so")
    opened.page.unroute("**/parts.json*")
    wait_for(lambda: fresh.inner_text() == "live", "the page to be live again")


def test_another_site_cannot_show_the_page_or_ask_for_it(address: str, open_page: Open, tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text(f"""<iframe src="{address}"></iframe><script>
        fetch("{address}").then((answer) => answer.text(), () => "refused").then((text) => (window.got = text));
    </script>""")
    page = open_page(other).page
    page.wait_for_function("window.got !== undefined")
    assert page.evaluate("window.got") == "refused"
    assert page.frames[1].evaluate("document.body.innerText.includes('small')") is False


def test_an_address_without_its_token_shows_nothing(address: str, open_page: Open) -> None:
    page = open_page(address.split("?")[0]).page
    assert page.locator("body").inner_text().strip() == "open the address that the command has printed, with its token"
