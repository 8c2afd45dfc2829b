"""Sweeps made by hand, as figures read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeper.columns import config_column
from sweeper.report.gathered import Gathered
from sweeper.results.frames import SweepTables
from sweeper.results.report import Standing
from sweeper.results.stored_space import StoredSpace
from sweeper.space.options.constraints import Constraint
from sweeper.space.options.objectives import Objective
from tests.sweeper.report.made_sweeps import frame
from trials.storage.rows import Row

ACCURACY = Objective(column="val_accuracy", direction="maximize")

NASTY = "</script><b>'\"\\ ünïcødé 模型 {{x}}"
"""A name that would end a script, close a quote, or need escaping."""


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
