"""Tables of sweeps that nobody ran: any number of trials, in any state, with any names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sweeper.columns import COLUMNS
from sweeper.folder.sweep_folder import SweepFolder
from sweeper.report.gathered import Gathered, gathered_of
from sweeper.results.frames import SweepTables
from trials.storage.rows import Row

SPACE: dict[str, Any] = {
    "name": "made",
    "about": "a sweep that nobody ran",
    "trial": {"model": "tiny", "dataset": "digits"},
    "grid": {"method": ["imp", "bip"], "density": [0.5, 0.1], "seed": [0, 1]},
    "search": {"lr": {"loguniform": [1e-3, 1.0]}},
    "objective": "val_accuracy",
    "direction": "maximize",
    "samples": 2,
    "retries": 0,
}


def made_sweep(
    folder: Path,
    *,
    status: Callable[[int], str] = lambda _: "complete",
    methods: Sequence[str] = ("imp", "bip"),
    densities: Sequence[float] = (0.5, 0.1),
    seeds: int = 2,
    samples: int = 2,
    epochs: int = 3,
    layers: Sequence[str] = ("conv1", "fc"),
    message: str = "no such device",
    begun: int | None = None,
    **fields: Any,
) -> SweepTables:
    """The tables of ``len(methods) * len(densities) * seeds * samples`` trials.

    ``status``: of a trial, by its number. ``message``: of failures. ``begun``: number of trials that have a folder;
    by default all. ``fields``: of the space, beside those above.
    """
    grid = {"method": list(methods), "density": list(densities), "seed": list(range(seeds))}
    SweepFolder(folder).append(
        {"space": {**SPACE, "grid": grid, "samples": samples, **fields}, "written": "2026-11-28"}
    )
    trials: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    asked = [(m, d, s, n) for m in methods for d in densities for s in range(seeds) for n in range(samples)]
    for number, (method, density, seed, sample) in enumerate(asked[:begun]):
        name, state = f"{method}-{number:012x}", status(number)
        accuracy = 0.9 + 0.05 * math.tanh(density * 5) - 0.01 * sample + 0.002 * seed - 0.01 * methods.index(method)
        done = state in ("complete", "pruned")
        trials.append(
            {
                "trial": name, "cell": f"method={method},density={density},seed={seed}", "number": sample, "samples": 1,
                "status": state, "attempts": 1, "failures": int(state == "failed"), "warnings": [], "epochs": epochs,
                "error_type": "RuntimeError" if state == "failed" else None, "method": method, "seed": seed,
                "error_message": message if state == "failed" else None, "config.density": density,
                "lr": 10 ** (-2 + number % 7 / 7), "dataset": "digits", "model": "tiny", "seconds": 12.5,
                "host": "node-1", "device": "cpu", "threads": 1, "torch": "2.15.0", "data": "dcca5f684b6d3049",
                "started": f"2026-11-28T08:{number % 60:02d}:00Z", "commit": "c0ffee",
                "report": "last" if done else None,
                "ended": f"2026-11-28T09:{number % 60:02d}:00Z" if state in ("complete", "failed") else None,
                **({"val_accuracy": accuracy, "test_accuracy": accuracy - 0.01, "density": density, "cost": 20.0,
                    "flops": int(1e6 * density), "parameters": int(1e5 * density)} if done else {}),
            }
        )  # fmt: skip
        for stage, stage_id in (("pretrain", "dense-0"), ("finetune", None)):
            for epoch in range(1, epochs + 1) if state != "scheduled" else ():
                share = accuracy * (1 - math.exp(-3 * epoch / epochs))
                rows.append(
                    {
                        "trial": name, "stage": stage, "level": 0, "epoch": epoch, "val_accuracy": share,
                        "test_accuracy": share - 0.01 if epoch == epochs else None, "train_loss": 1 / epoch,
                        "val_loss": 1.1 / epoch, "density": 1.0 if stage == "pretrain" else density,
                        "warnings": [], "stage_id": stage_id, "seconds": 1.0, "lr": 0.1,
                    }
                )  # fmt: skip
        kept += [
            {
                "trial": name, "stage": "finetune", "level": 0, "layer": layer, "total": 1000,
                "kept": int(1000 * density), "density": density, "flops": int(1e5 * density),
            }
            for layer in (layers if done else ())
        ]  # fmt: skip
    return SweepTables(
        folder, frame("trials", trials), frame("epochs", rows), frame("layers", kept), frame("allocations", []),
        frame("lineage", []),
    )  # fmt: skip


def made(folder: Path, **options: Any) -> Gathered:
    """What a report of :func:`made_sweep` is made of."""
    return gathered_of(made_sweep(folder, **options))


def frame(table: str, rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table with every column that is always there, of its type."""
    names = list(dict.fromkeys([*COLUMNS[table], *(name for row in rows for name in row)]))
    found: pd.DataFrame = pd.DataFrame(list(rows), columns=names)
    for name, column in COLUMNS[table].items():
        kind = str(getattr(column, "type", ""))
        if kind == "int64":
            found[name] = found[name].astype("Int64")
        elif kind == "double":
            found[name] = found[name].astype("float64")
        elif found[name].isna().all():
            found[name] = pd.Series([None] * len(found), dtype=object)
    return found
