"""Print the comparison of two sweeps (``--compare A B``)."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd
from rich.console import Console

from sweeper.columns import config_column
from sweeper.console import print_line, print_table
from sweeper.paired.comparison_table import SweepComparison, compare_sweeps
from sweeper.results.report import standing
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.tables import read
from sweeper.screen.number_texts import fixed
from trials.storage.place import Place, place
from trials.storage.sweep_path import sweep_path

_NONE = "–"


def named_sweep(storage: str, name: str) -> Place:
    """The folder of a sweep that is given by its name in the storage, or by its own path.

    Raises:
        UserError: it can be neither.
    """
    return place(name) if re.search(r"[/\\:~]", name) else sweep_path(storage, name, "--compare")


def show_comparison(first: Place, second: Place, console: Console) -> None:
    """Print how two sweeps differ, cell by cell. Writes nothing.

    Raises:
        UserError: one of them is no sweep, or they are not comparable.
    """
    a, b = (read(path, rows=("epochs",)) for path in (first, second))
    found = compare_sweeps(a, b)
    for name, sweep in (("A", a), ("B", b)):
        print_line(console, f"{name}: {standing(sweep)}")
    for line in found.notes:
        print_line(console, f"note: {line}")
    for line in found.fields:
        print_line(console, f"differs: {line}")
    for figure, rows in found.table.groupby("figure", sort=False):
        print_line(console, _title(str(figure)))
        print_table(_texts(rows, found, str(figure)), console, left=("note",), keys=found.paths)
    print_line(console, "p: paired t test, two-sided; p Holm: corrected for the number of cells of its table")


def _title(figure: str) -> str:
    unit = " in percentage points" if figure.endswith("accuracy") else ""
    what = " (chooses nothing)" if figure.startswith("test_") else ""
    return f"{figure}{what}: B - A{unit}, over the seeds of both"


def _texts(rows: pd.DataFrame, found: SweepComparison, figure: str) -> dict[str, list[str]]:
    scale, unit = (100, " %") if figure.endswith("accuracy") else (1, "")
    listed = rows_of(rows, set(rows.columns))
    texts = {path: [_value(row[config_column(path)]) for row in listed] for path in found.paths}
    if not texts:
        texts["cell"] = ["all"] * len(listed)
    for side in "ab":
        texts[side.upper() + unit] = [_spread(row[f"{side}_mean"], row[f"{side}_std"], scale) for row in listed]
    texts["n"] = [str(row["n"]) for row in listed]
    texts["B - A"] = [_number(row["difference"], scale, sign="+") for row in listed]
    texts["95 % interval"] = [_interval(row["low"], row["high"], scale) for row in listed]
    texts |= {name: [_p(row[column]) for row in listed] for name, column in (("p", "p"), ("p Holm", "p_holm"))}
    if rows["p_wilcoxon"].notna().any():
        texts["p Wilcoxon"] = [_p(row["p_wilcoxon"]) for row in listed]
    for side in "ab":
        texts[f"density {side.upper()} %"] = [_number(row[f"{side}_density"], 100) for row in listed]
    texts["note"] = [row["note"] or "" for row in listed]
    return texts if any(texts["note"]) else {name: column for name, column in texts.items() if name != "note"}


def _value(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: float | None, scale: float, sign: str = "") -> str:
    return _NONE if value is None or math.isnan(value) else fixed(scale * value, 2, sign)


def _spread(mean: float | None, std: float | None, scale: float) -> str:
    return _NONE if mean is None else f"{fixed(scale * mean, 2)} ± {_number(std, scale)}"


def _interval(low: float | None, high: float | None, scale: float) -> str:
    return _NONE if low is None else f"{_number(low, scale, '+')} to {_number(high, scale, '+')}"


def _p(value: float | None) -> str:
    return _NONE if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"
