"""The summary as text columns, as the terminal and the report's page show it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sweeper.results.frames import SweepTables
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.stored_space import StoredSpace
from sweeper.results.summary import ACCURACIES, column_of, summarise
from sweeper.screen.number_texts import fixed
from trials.storage.rows import Row


def summary_texts(sweep: SweepTables, space: StoredSpace) -> dict[str, list[str]]:
    """The columns of :func:`summarise` as texts, accuracies and densities in percent; empty if there are no rows."""
    first, *others = space.objectives
    summary = summarise(
        sweep, objective=first.column, direction=first.direction, grid=space.paths, search=space.search,
        constraints=space.constraints, beside=[objective.column for objective in others], confirm=space.confirm,
        replicates=space.replicates,
    )  # fmt: skip
    if not len(summary):
        return {}
    figures = [objective.column for objective in space.objectives]
    return _texts(summary, figures, [path for path in space.paths if path != "seed"])


def _texts(summary: pd.DataFrame, objectives: Sequence[str], groups: Sequence[str]) -> dict[str, list[str]]:
    """The summary's columns as texts, accuracies and densities in percent; empty columns are left out."""
    rows = rows_of(summary, set(summary.columns))
    keys = [(row["kind"], *(row[column_of(path)] for path in groups)) for row in rows]
    first = [i == 0 or keys[i] != keys[i - 1] for i in range(len(rows))]  # whether it is a group's first level

    def once(texts: Sequence[str]) -> list[str]:
        return [text if show else "" for text, show in zip(texts, first, strict=True)]

    shown = {path: once([table_text(row[column_of(path)]) for row in rows]) for path in groups if path != "density"}
    shown["level"] = [table_text(row["level"]) for row in rows]
    shown["density asked %"] = [_percent(row["density_asked"]) for row in rows]
    label = shown["level" if any(shown["level"]) else "density asked %"]
    label[:] = ["dense" if row["kind"] == "dense" else text for row, text in zip(rows, label, strict=True)]
    shown["density %"] = [_percent(row["density"]) for row in rows]
    for figure in dict.fromkeys((*ACCURACIES, *objectives)):
        scale = 100 if figure.endswith("accuracy") else 1
        shown[figure + " %" * (scale == 100)] = [_spread(row, figure, scale) for row in rows]
    shown["n"] = [table_text(row["n"]) for row in rows]
    shown["cost"] = [table_text(row["cost"]) for row in rows]
    shown["report"] = [row["report"] or "" for row in rows]
    shown["confirmed"] = once([row["confirmed"] or "" for row in rows])
    scale = 100 if objectives[0].endswith("accuracy") else 1
    own = once(["" if row["searched"] is None else fixed(scale * row["searched"], 2) for row in rows])
    shown[f"searched {objectives[0]}" + " %" * (scale == 100)] = own
    shown["done"] = once([f"{row['done']:.0f}/{row['trials']:.0f}" if row["trials"] else "" for row in rows])
    shown["failed"] = once([f"{row['failed']:.0f}" if row["failed"] else "" for row in rows])
    shown["infeasible"] = once([f"{row['infeasible']:.0f}" if row["infeasible"] else "" for row in rows])
    shown["warnings"] = [row["warnings"] or "" for row in rows]
    shown["best"] = once([row["best"] or "" for row in rows])
    shown["not complete"] = once([row["waiting"] or "" for row in rows])
    return {name: texts for name, texts in shown.items() if any(texts)}


def table_text(value: object) -> str:
    """A value as a cell of a table: numbers with four digits, nothing for None."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(value: object) -> str:
    plain = isinstance(value, (int, float)) and (value != value or abs(value) < 2**63)
    return f"{100 * float(value):.2f}" if plain else table_text(value)  # type: ignore[arg-type]


def _spread(row: Row, figure: str, scale: float) -> str:
    """``mean ± std``, with – for a figure that has too few values."""
    mean, std = row[f"{figure}_mean"], row[f"{figure}_std"]
    if mean is None:
        return "–"
    return f"{fixed(scale * mean, 2)} ± {'–' if std is None else fixed(scale * std, 2)}"
