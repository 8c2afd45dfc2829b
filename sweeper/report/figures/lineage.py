"""The lineage of a population: objective and hyperparameters over epochs, by member, with copies and ancestry."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from sweeper.columns import COLUMNS
from sweeper.report.elements.axes import legend_below, spreads_widely
from sweeper.report.elements.panels import (
    MANY_MARKS,
    MOST_COLOURS,
    SHORT_NUMBERS,
    choice,
    chosen_title,
    in_units,
    only_chosen,
    only_of,
    stacked,
)
from sweeper.report.elements.scales import round_values
from sweeper.report.elements.searched import are_numbers
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.results.frames import SweepTables
from sweeper.results.lineage import history
from sweeper.results.points import is_number
from sweeper.results.rows_of_frames import rows_of
from sweeper.results.warned import codes_by_trial
from sweeper.space.options.objectives import Objective
from trials.errors import UserError, listed
from trials.storage.rows import Row


def draw(gathered: Gathered, cell: str | None = None) -> Figure:
    """Return the lineage of every cell's population: its first objective and its hyperparameters over epochs.

    A dotted line leads from a segment to a member that continues a copy of it. The ancestry of the best member of the
    last generation is thick. The point of a segment whose trial has warnings is hollow.

    Args:
        gathered: the sweep.
        cell: key of the cell that is shown first; by default the first one.

    Raises:
        UserError: the sweep has no population, or none in that cell, or no trial has reported the objective.
    """
    sweep, objective = gathered.sweep, gathered.space.objectives[0]
    cells = list(dict.fromkeys(sweep.lineage["cell"])) if len(sweep.lineage) else []
    if not cells and cell is None:
        raise UserError(f"{sweep.path.name} has no population: its space has no section pbt, or no segment has begun")
    if cell is not None and cell not in cells:
        shown = listed(map(repr, sorted(cells)), 30) or "none"
        raise UserError(f"cell is {cell!r}, but the cells with a population are: {shown}")
    if objective.column not in sweep.trials:
        raise UserError(
            f"objective is {objective.column!r}, but no trial has reported it: wait for one, or restore sweep.yaml"
        )
    paths = [n for n in sweep.lineage.columns if n not in COLUMNS["lineage"] and sweep.lineage[n].notna().any()]
    best = {row["trial"] for each in gathered.cells if each.best for row in each.best.rows}
    rows = pd.DataFrame([row for key in cells for row in _cell_rows(sweep, key, objective, paths, best)])
    return Figure(
        "lineage", "Lineage of the population", _in_words(sweep, rows, objective, cell or cells[0]),
        _spec(rows, [in_units(objective.column)[0], *paths], cells, cell), rows, _notes(rows), 6,
        canvas=len(rows) > MANY_MARKS,
    )  # fmt: skip


def _cell_rows(
    sweep: SweepTables, cell: str, objective: Objective, paths: list[str], best_trials: Collection[str]
) -> list[Row]:
    """Return the rows of a cell: by panel, a point or bar per segment, and a line that joins it to its parent."""
    mine, warned = _segments(sweep, cell, objective), codes_by_trial(sweep)
    best = _best(mine, objective, best_trials)
    segments = {(row["generation"], row["member"]): row for row in rows_of(mine, set(mine.columns))}
    title, scale = in_units(objective.column)
    rows: list[Row] = []
    for (generation, member), row in segments.items():
        parent = segments.get((generation - 1, row["parent"]))
        common = {
            "cell": cell, "generation": generation, "member": member, "parent": row["parent"], "trial": row["trial"],
            "copied": bool(generation and row["parent"] != member), "best": (generation, member) in best,
            "warnings": warned.get(row["trial"], ""),
        }  # fmt: skip
        until = {"epoch": row["until_epoch"], "until_epoch": row["until_epoch"]}
        reached = scale * row[objective.column] if is_number(row[objective.column]) else None
        if reached is not None:
            rows.append(
                {**common, "panel": title, "kind": "reached", **until, "value": reached, "until_value": reached}
            )
            if parent is not None and is_number(parent[objective.column]):
                start = {"epoch": parent["until_epoch"], "value": scale * parent[objective.column]}
                rows.append({**common, "panel": title, "kind": "link", **until, "until_value": reached, **start})
        for path in (path for path in paths if row[path] is not None):
            own = {**common, "panel": path, **_valued(row[path])}
            rows.append({**own, "kind": "held", **until, "epoch": row["from_epoch"], "until_value": own["value"]})
            if parent is not None and is_number(row[path]) and is_number(parent[path]):
                start = {"epoch": parent["until_epoch"], "until_epoch": row["from_epoch"], "value": float(parent[path])}
                rows.append({**own, "kind": "link", "until_value": own["value"], **start})
    return rows


def _segments(sweep: SweepTables, cell: str, objective: Objective) -> pd.DataFrame:
    mine = sweep.lineage[sweep.lineage["cell"] == cell]
    mine = mine.merge(sweep.trials[["trial", objective.column]], on="trial", how="left", suffixes=("", " reached"))
    ordered: pd.DataFrame = mine.sort_values(["generation", "member"], ignore_index=True)
    return ordered


def _valued(value: Any) -> Row:
    """A hyperparameter's value as a number, or as a text where it is none."""
    return {"value": float(value)} if are_numbers([value]) else {"value": None, "choice": str(value)}


def _best(mine: pd.DataFrame, objective: Objective, best_trials: Collection[str]) -> set[tuple[int, int]]:
    """Generation and member of the ancestry of the best member of the last generation with objective values.

    It is the cell's best trial; while that is of no member, as where none keeps its bounds, the best by value.
    """
    known = mine[mine[objective.column].notna()]
    if known.empty:
        return set()
    last = known[known["generation"] == known["generation"].max()]
    own = last[last["trial"].isin(list(best_trials))]
    by_value = last.sort_values(objective.column, ascending=objective.sign < 0, kind="stable")
    best = (own if len(own) else by_value).iloc[0]
    through = history(mine[mine["generation"] <= best["generation"]], best["cell"], int(best["member"]))
    return set(zip(through["generation"].tolist(), through["member"].tolist(), strict=True))


def _notes(rows: pd.DataFrame) -> tuple[str, ...]:
    notes = ["dotted: a copy of another member; thick: the ancestry of the best member of the last generation"]
    if (rows["warnings"] != "").any():
        notes.append("hollow: trials with warnings")
    return tuple(notes)


def _in_words(sweep: SweepTables, rows: pd.DataFrame, objective: Objective, cell: str) -> str:
    """How large the population is, and how the best member of the first cell came about."""
    title = in_units(objective.column)[0]
    lineage = sweep.lineage
    members, generations = lineage["member"].nunique(), lineage["generation"].nunique()
    text = (
        f"{title} and hyperparameters over epochs of {members} members in {generations} generations, in "
        f"{lineage['cell'].nunique()} cells."
    )
    best = rows[(rows["cell"] == cell) & rows["best"] & (rows["kind"] == "reached")]
    if best.empty:
        return f"{text} No trial of {cell or 'the search'} is complete yet."
    last = best.sort_values("generation").iloc[-1]
    copies = int(best["copied"].sum())
    times = "once" if copies == 1 else f"{copies} times"
    return (
        f"{text} Best member of the last generation of {cell or 'the search'}: {last['value']:.4g} (member "
        f"{last['member']}); its ancestry changes the member {times if copies else 'never'}."
    )


def _spec(rows: pd.DataFrame, panels: list[str], cells: list[str], cell: str | None) -> dict[str, Any]:
    there = [panel for panel in panels if (rows["panel"] == panel).any()]
    top: dict[str, Any] = {}
    if len(cells) > 1:
        top = {"params": [choice("cell_shown", "cell", cells, cell)], "transform": [only_chosen("cell", "cell_shown")]}
        top |= chosen_title("cell_shown")
    few = rows["member"].nunique() <= MOST_COLOURS
    member = {"field": "member", "type": "nominal" if few else "ordinal", "title": "member", "sort": None}
    colour = {
        **member,
        "legend": legend_below(list(map(str, rows["member"])), title="member", offset=8, symbolType="circle"),
    }
    views = [_panel(rows[rows["panel"] == panel], panel, colour, last=panel == there[-1]) for panel in there]
    return stacked(views, **top)


def _axis(values: Sequence[float], panel: str) -> dict[str, Any]:
    """The y axis of a panel: of its numbers, or of choices if it has none."""
    if not values:
        return {"field": "choice", "type": "nominal", "title": panel}
    log = spreads_widely(values) and not panel.endswith("]")
    scale = {"type": "log"} if log else {"zero": False}
    axis = {"labelExpr": SHORT_NUMBERS, "labelOverlap": True}
    axis |= {"values": round_values(min(values), max(values), log=True)} if log else {"tickCount": 5}
    y = {"field": "value", "type": "quantitative", "title": panel, "axis": axis}
    return {**y, "scale": {**scale, "padding": 6, "nice": False}}


def _panel(rows: pd.DataFrame, panel: str, colour: dict[str, Any], *, last: bool) -> dict[str, Any]:
    x = {
        "field": "epoch", "type": "quantitative", "title": "epoch" if last else None,
        "scale": {"domainMin": 0, "nice": False, "padding": 6}, "axis": {"tickMinStep": 1, "format": "d"},
    }  # fmt: skip
    values = [value for value in rows["value"].tolist() if is_number(value)]
    texts, y = not values, _axis(values, panel)
    thick = {"condition": {"test": "datum.best", "value": 3.2}, "value": 1.1}
    dotted = {"condition": {"test": "datum.copied && datum.kind === 'link'", "value": [2, 3]}, "value": [1, 0]}
    tooltip = [
        {"field": field, "title": title}
        for field, title in (
            ("member", "member"), ("generation", "generation"), ("parent", "continues member"),
            ("choice" if texts else "until_value", panel), ("until_epoch", "until epoch"), ("trial", "trial"),
            ("warnings", "warnings"),
        )
    ]  # fmt: skip
    ends = {"x2": {"field": "until_epoch"}, **({} if texts else {"y2": {"field": "until_value"}})}
    hollow = {"condition": {"test": "datum.warnings !== ''", "value": 0}, "value": 1}
    both = {"color": colour, "tooltip": tooltip}
    lines = {
        "transform": [{"filter": "datum.kind !== 'reached'"}],
        "mark": "rule",
        "encoding": {**ends, **both, "strokeWidth": thick, "strokeDash": dotted},
    }
    points = {
        "transform": [{"filter": "datum.kind === 'reached'"}],
        "mark": {"type": "point", "size": 40, "opacity": 1},
        "encoding": {**both, "fillOpacity": hollow},
    }
    reached, others = (rows["kind"] == "reached").any(), (rows["kind"] != "reached").any()
    return {
        "height": 60 if texts else 110,
        "transform": [only_of("panel", panel)],
        "encoding": {"x": x, "y": y},
        "layer": [*([lines] if others else []), *([points] if reached else [])],
    }
