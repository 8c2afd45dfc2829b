"""The report's page in a real browser: it draws, it asks for nothing, and its tables sort, search and copy."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.report.figures import REPORT_FIGURES
from sweeper.report.gathered import Gathered, gathered_of
from sweeper.report.page import parts, report_html
from tests.sweeper.report.conftest import Opened
from tests.sweeper.report.made_sweeps import made, made_sweep

Open = Callable[..., Opened]

BAD = """</script><script>alert(1)</script> <img src=x onerror=alert(2)> "quoted" 'single' & {{ 7*7 }} Zürich 剪枝 🙂"""


def written(tmp_path: Path, gathered: Gathered) -> Path:
    path = tmp_path / "report.html"
    path.write_text(report_html(gathered))
    return path


def all_drawn(opened: Opened) -> list[str]:
    """Scroll through the page until every figure that it has is drawn, and return their names."""
    names: list[str] = opened.page.evaluate(
        "Object.keys(JSON.parse(document.getElementById('parts').textContent).figures)"
    )
    for name in names:
        opened.page.locator(f"section#{name}").scroll_into_view_if_needed()
        opened.page.wait_for_selector(f"#plot-{name} :is(svg, canvas)", timeout=10_000)
    return names


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


STATES: dict[str, dict[str, Any]] = {
    "finished": {},
    "in progress": {"status": lambda n: ("complete", "complete", "running", "scheduled")[n % 4]},
    "only failures": {"status": lambda n: "failed"},
    "empty": {"begun": 0},
    "names": {"methods": (BAD, "imp"), "message": BAD * 3, "about": BAD, "layers": (BAD, "fc")},
}


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("state", STATES)
def test_the_page_draws_without_errors_or_requests(tmp_path: Path, open_page: Open, state: str, width: int) -> None:
    folder = tmp_path / (BAD.replace("/", "|")[:80] if state == "names" else "made")
    opened = open_page(written(tmp_path, made(folder, **STATES[state])), width=width, dark=width < 500)
    drawn = all_drawn(opened)
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert opened.page.title() == f"{folder.name} · report"
    assert opened.page.locator("h1").inner_text() == folder.name
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert bool(drawn) == (state not in ("only failures", "empty")) or "learning_curves" in drawn
    for name in drawn:
        shown = opened.page.locator(f"#plot-{name}")
        picture = shown.locator(":is(svg, canvas).marks")
        assert picture.get_attribute("aria-label"), f"{name} has no text alternative"
        box = shown.bounding_box()
        assert box["width"] <= width
        assert box["height"] > 40
    if state == "only failures":
        assert "16 failed trials" in opened.page.locator("#problems").inner_text()
    if state == "names":
        assert BAD in opened.page.locator("#section-asked").inner_text()


def test_tables_are_sorted_searched_and_copied(tmp_path: Path, open_page: Open) -> None:
    gathered = made(tmp_path / "made", status=lambda n: "failed" if n == 3 else "complete", samples=40, message=BAD)
    opened = open_page(written(tmp_path, gathered))
    section = opened.page.locator("section#trials")
    assert section.locator('[data-part="count"]').inner_text() == "320 of 320 rows, the first 100 shown"
    assert section.locator("tbody tr").count() == 100
    section.locator('[data-part="more"]').click()
    assert section.locator("tbody tr").count() == 320
    place = [text.strip() for text in section.locator("thead th").all_inner_texts()].index("val_accuracy")
    head = section.locator("thead th").nth(place)

    def column() -> list[str]:
        found: list[str] = section.locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()
        return found

    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column()[-1] == "", "unknown values come last"
    assert column()[:-1] == sorted(column()[:-1], key=float)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column()[-1] == ""
    assert column()[:-1] == sorted(column()[:-1], key=float, reverse=True)
    section.locator("input").fill("failed quoted")
    assert section.locator('[data-part="count"]').inner_text() == "1 of 320 rows"
    with opened.page.expect_download() as download:
        section.locator('[data-part="download"]').click()
    assert download.value.suggested_filename == "made-trials.csv"
    (row,) = read_csv(Path(download.value.path()).read_text(encoding="utf-8"))
    assert (row["trial"], row["error_message"]) == ("imp-000000000003", BAD)
    opened.page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    section.locator('[data-part="copy"]').click()
    opened.page.wait_for_function("window.copied !== undefined")
    assert read_csv(opened.page.evaluate("window.copied")) == [row]
    assert opened.errors == []


def test_every_figure_offers_the_rows_that_it_draws(tmp_path: Path, open_page: Open) -> None:
    gathered = made(tmp_path / "made", samples=8)
    opened = open_page(written(tmp_path, gathered))
    names = all_drawn(opened)
    assert names
    for name in names:
        with opened.page.expect_download() as download:
            opened.page.locator(f'[data-csv="{name}"]').click()
        rows = read_csv(Path(download.value.path()).read_text(encoding="utf-8"))
        figure = parts(gathered)["figures"][name]
        assert len(rows) == figure["rows"]["rows"]
        assert list(rows[0]) == list(figure["rows"]["columns"])


def test_a_thousand_trials_paint_at_once_in_a_file_below_five_megabytes(tmp_path: Path, open_page: Open) -> None:
    gathered = made(tmp_path / "made", densities=[0.5, 0.2, 0.1, 0.05, 0.01], seeds=4, samples=25, epochs=150)
    assert len(gathered.sweep.trials) == 1000
    path = written(tmp_path, gathered)
    assert path.stat().st_size < 5e6
    opened = open_page(path)
    painted = opened.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    print(f"first paint of 1,000 trials: {painted:.0f} ms")
    all_drawn(opened)
    assert opened.errors == []
    assert opened.page.locator("section#trials tbody tr").count() == 100, "the rest waits for a click"


def test_the_data_in_the_page_are_those_of_the_tables(tmp_path: Path, open_page: Open) -> None:
    gathered = made(tmp_path / "made")
    opened = open_page(written(tmp_path, gathered))
    held = json.loads(opened.page.locator("#parts").text_content())
    assert held["tables"]["trials"]["packed"] == parts(gathered)["tables"]["trials"]["packed"]
    assert set(held["figures"]) <= set(REPORT_FIGURES)


def test_a_dark_page_is_printed_dark_on_white_and_whole(tmp_path: Path, open_page: Open) -> None:
    gathered = made(tmp_path / "made", samples=20, status=lambda n: "failed" if n % 2 else "complete")
    opened = open_page(written(tmp_path, gathered), dark=True)
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    for name in parts(gathered)["figures"]:
        page.wait_for_selector(f"#plot-{name} :is(svg, canvas)")
    ink = "getComputedStyle(document.body).color"
    assert page.evaluate(ink) == "rgb(27, 31, 36)"
    page.wait_for_function("document.querySelector('#accuracy_density svg text').getAttribute('fill') === '#57606a'")
    assert page.locator("#problems details").evaluate("one => one.open")
    page.set_viewport_size({"width": 700, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    assert page.locator("#trials .scroll").evaluate("one => one.scrollHeight <= one.clientHeight")
    assert page.locator("#trials [data-part=count]").inner_text() == "160 of 160 rows, the first 100 shown"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(ink) == "rgb(230, 230, 230)"
    assert not page.locator("#problems details").evaluate("one => one.open")
    assert opened.errors == []


CONTRAST = """() => {
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const behind = (one) => {
    const found = numbers(getComputedStyle(one).backgroundColor);
    return found.length < 4 || found[3] > 0 ? found : one.parentElement ? behind(one.parentElement) : [255, 255, 255];
  };
  const low = new Set();
  for (const one of document.querySelectorAll("body *:not(svg *):not(script)")) {
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    const named = `${one.tagName} ${one.parentElement.className} ${one.textContent.slice(0, 30)}`;
    if ((a + 0.05) / (b + 0.05) < 4.5) low.add(named);
  }
  return [...low];
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_texts_have_contrast_and_menus_have_labels(tmp_path: Path, open_page: Open, dark: bool) -> None:
    gathered = made(tmp_path / "made", status=lambda n: "failed" if n == 3 else "complete", samples=8)
    opened = open_page(written(tmp_path, gathered), dark=dark)
    all_drawn(opened)
    assert opened.page.evaluate(CONTRAST) == []
    assert (
        opened.page.evaluate(
            "[...document.querySelectorAll('select, input')].filter((one) => !one.labels.length).length"
        )
        == 0
    )


def test_two_drawings_at_once_keep_what_was_chosen(tmp_path: Path, open_page: Open) -> None:
    opened = open_page(written(tmp_path, made(tmp_path / "made", samples=8)))
    all_drawn(opened)
    menu = opened.page.locator("#plot-learning_curves select[name=curve]")
    menu.select_option("val_loss_nats")
    menu.focus()
    opened.page.locator("#theme").evaluate("""one => {
        for (const value of ["dark", "light", "dark"]) { one.value = value; one.dispatchEvent(new Event("change")); }
    }""")
    opened.page.wait_for_selector("#accuracy_density svg text[fill='#b3b3b3']", state="attached")
    opened.page.wait_for_timeout(500)
    assert menu.input_value() == "val_loss_nats"
    assert opened.page.evaluate("document.activeElement.name") == "curve"
    assert opened.page.locator("#plot-learning_curves :is(svg, canvas).marks").count() == 1
    assert opened.errors == []


def test_large_whole_numbers_are_not_rounded(tmp_path: Path, open_page: Open) -> None:
    sweep = made_sweep(tmp_path / "made")
    sweep.trials["seed"] = [2**63 - 1 - number for number in range(len(sweep.trials))]
    opened = open_page(written(tmp_path, gathered_of(sweep)))
    with opened.page.expect_download() as download:
        opened.page.locator("#trials [data-part=download]").click()
    rows = read_csv(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [int(row["seed"]) for row in rows] == sweep.trials["seed"].tolist()
    assert [float(row["lr"]) for row in rows] == sweep.trials["lr"].tolist()
