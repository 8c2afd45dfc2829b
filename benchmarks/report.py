"""The report's page for 100 and 1,000 finished trials, as a ratio to reading the sweep's tables in the same run.

Both are CPU times. Reading is that of ``sweep.yaml`` and of tables that have been written. Every trial is a cell of its
own, which costs most. Goals for 1,000 trials: at most 40 times as long as the tables, and below 5 MB.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.overhead import trivial
from benchmarks.scale import synthesise
from sweeper.report.figures import REPORT_FIGURES, draw_figure
from sweeper.report.gathered import Gathered, gathered
from sweeper.report.page import report_html
from sweeper.results.tables import compact_tables
from trials.errors import UserError
from trials.storage.place import Place

ROUNDS = 5


def cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time of one call."""
    began = time.process_time()
    function()
    return time.process_time() - began


def figure_seconds(found: Gathered) -> dict[str, float]:
    """CPU time of each figure that the sweep has something for."""
    seconds = {}
    for name in REPORT_FIGURES:
        try:
            seconds[name] = cpu_seconds(lambda name=name: draw_figure(name, found))  # type: ignore[misc]
        except UserError:
            continue
    return seconds


def measure(trials: int, path: Place) -> None:
    """Print what the page of a sweep takes."""
    found = gathered(path)
    first = cpu_seconds(lambda: report_html(found))
    pairs = [(cpu_seconds(lambda: report_html(found)), cpu_seconds(lambda: gathered(path))) for _ in range(ROUNDS)]
    ratios = sorted(page / tables for page, tables in pairs)
    page, tables = (statistics.median(column) for column in zip(*pairs, strict=True))
    size = len(report_html(found).encode())
    ratio = f"{statistics.median(ratios):.1f} (min {ratios[0]:.1f}, max {ratios[-1]:.1f}, n {ROUNDS}; goal <= 40)"
    print(f"{trials} trials: page {page * 1e3:.0f} ms, tables {tables * 1e3:.0f} ms, ratio {ratio}", flush=True)
    print(f"  {size / 1e6:.2f} MB (goal < 5 MB); the first page of a process: {first * 1e3:.0f} ms")
    for name, seconds in sorted(figure_seconds(found).items(), key=lambda item: -item[1]):
        print(f"  {name}: {seconds * 1e3:.0f} ms")


def main() -> None:
    for trials in (100, 1000):
        with tempfile.TemporaryDirectory() as temporary:
            folder = synthesise(trivial(trials, Path(temporary)), Path(temporary) / "storage")
            compact_tables(folder)
            measure(trials, folder.path)


if __name__ == "__main__":
    main()
