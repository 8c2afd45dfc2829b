"""Draw docs/report.png: the first screen of a sweep's report, in Chromium.

python sweep.py --space compare_methods --profile demo
python docs/report_picture.py results/compare_methods
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import sweeper

SIZE = {"width": 1200, "height": 1050}


def main(sweep: str = "results/compare_methods") -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("Chromium is not installed: it makes the picture")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = sweeper.load(sweep).report(Path(folder) / "report.html")
        shown = playwright.chromium.launch(executable_path=browser).new_page(viewport=SIZE)
        shown.goto(Path(str(page)).as_uri())
        shown.wait_for_selector("#plot-accuracy_density svg")
        shown.screenshot(path=Path(__file__).parent / "report.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
