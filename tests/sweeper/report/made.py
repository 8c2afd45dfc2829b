"""Sweeps made by hand, as figures read them, and checks that a figure's specification can be drawn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeper.columns import COLUMNS, config_column
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.report.packed import rows_for_vega
from sweeper.results.frames import SweepTables
from sweeper.results.report import Standing
from sweeper.results.stored_space import StoredSpace
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective
from trials.storage.rows import Row

ACCURACY = Objective(column="val_accuracy", direction="maximize")

NASTY = "</script><b>'\"\\ ünïcødé 模型 {{x}}"
"""A name that would end a script, close a quote, or need escaping."""


def frame(table: str, rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table with every column that is always there."""
    found = pd.DataFrame(list(rows))
    for column in COLUMNS[table]:
        if column not in found:
            found[column] = pd.Series([None] * len(found), dtype=object)
    return found


def made(
    trials: Sequence[Row],
    *,
    grid: Sequence[str] = ("density",),
    search: Mapping[str, Any] | None = None,
    conditions: Mapping[str, Any] | None = None,
    objectives: Sequence[Objective] = (ACCURACY,),
    constraints: Sequence[Constraint] = (),
    layers: Sequence[Row] = (),
    epochs: Sequence[Row] = (),
    allocations: Sequence[Row] = (),
    lineage: Sequence[Row] = (),
) -> Gathered:
    """A sweep of these rows. Trials are complete, of one_shot, and of the cell that their grid values name."""
    search = search or {}
    whole = []
    for number, trial in enumerate(trials):
        cell = ",".join(f"{path}={trial[config_column(path)]}" for path in grid)
        known = {"trial": f"t{number:04}", "cell": cell, "number": number, "samples": 1, "status": "complete",
                 "method": "one_shot", "warnings": []}  # fmt: skip
        whole.append({**known, **trial})
    always = dict.fromkeys(search, ((),))
    space = StoredSpace(
        tuple(grid), len({row["cell"] for row in whole}), tuple(search), len(whole), tuple(objectives),
        tuple(constraints), conditions={**always, **(conditions or {})},
    )  # fmt: skip
    tables = SweepTables(
        Path("results/made"), frame("trials", whole), frame("epochs", epochs), frame("layers", layers),
        frame("allocations", allocations), frame("lineage", lineage),
    )  # fmt: skip
    return Gathered(tables, space, Standing("made", len(whole), 0, 0, 0, 0), ({"space": {"search": dict(search)}},))


def layer_rows(trial: str, stage: str, level: int, densities: Mapping[str, float], total: int = 1000) -> list[Row]:
    """A trial's rows of ``layers`` at the end of a stage."""
    return [
        {"trial": trial, "stage": stage, "level": level, "layer": layer, "total": total, "density": density,
         "kept": round(density * total)}
        for layer, density in densities.items()
    ]  # fmt: skip


def compiled(figure: Figure) -> dict[str, Any]:
    """The figure as Vega, drawn once; fails if Vega-Lite has a warning."""
    vl_convert = pytest.importorskip("vl_convert")
    spec = {**figure.spec, "datasets": {"rows": rows_for_vega(figure.rows)}}
    if "vconcat" in spec:
        spec["vconcat"] = [{**view, "width": 300} for view in spec["vconcat"]]
    with warnings_said() as said:
        vega: dict[str, Any] = vl_convert.vegalite_to_vega(spec, "6.4", show_warnings=True)
        assert "<svg" in vl_convert.vegalite_to_svg(spec, "6.4", show_warnings=True)
    assert said == []
    return vega


@contextmanager
def warnings_said() -> Iterator[list[str]]:
    """Collect what is written to the process's standard output and error, also by compiled code."""
    said: list[str] = []
    with tempfile.TemporaryFile("w+") as file:
        before = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            yield said
        finally:
            for number, own in zip((1, 2), before, strict=True):
                os.dup2(own, number)
                os.close(own)
        file.seek(0)
        said += [line for line in file.read().splitlines() if line]


def shapes_drawn(figure: Figure, kind: str) -> int:
    """How many marks of a kind (symbol, line, rect, text) the picture has."""
    from sweeper.report.saved import picture

    pytest.importorskip("vl_convert")
    return picture(figure, ".svg").decode().count(f'aria-roledescription="{kind}')


def options_of(figure: Figure, parameter: str) -> list[str]:
    """What a menu of the figure offers."""
    found: list[str] = next(p for p in figure.spec["params"] if p["name"] == parameter)["bind"]["options"]
    return found
