"""Density by layer: a heat map of the layers, in the network's order, by the densities or levels of the best trials."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sweeper.columns import config_column
from sweeper.report.elements.axes import SIZE_PARAMS
from sweeper.report.elements.panels import MANY_MARKS, choice, chosen_title, only_chosen
from sweeper.report.elements.series import series_paths
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from trials.errors import UserError, unknown_name

_DENSE = "pretrain"
"""The stage that trains the dense network; it has no densities to show."""

_TOOLTIP = [
    {"field": "layer", "title": "layer"},
    {"field": "weights", "title": "weights", "format": ","},
    {"field": "kept", "title": "kept, mean", "format": ",.0f"},
    {"field": "density_percent", "title": "density %", "format": ".4~g"},
    {"field": "density_std_percent", "title": "± (ddof 1)", "format": ".2~g"},
    {"field": "asked", "title": "cell"},
    {"field": "level", "title": "level"},
    {"field": "whole_density_percent", "title": "density of all layers %", "format": ".4~g"},
    {"field": "n", "title": "n"},
]


def draw(gathered: Gathered, series: str | None = None) -> Figure:
    """Return the density (%) of every layer of the best trials of the cells, as means over seeds.

    Layers are rows, in the network's order. Columns are the densities that were asked for, or the levels of methods
    that have levels. Colours are logarithmic; a cross marks a layer without any weight.

    Args:
        gathered: the sweep.
        series: which of several methods (or other grid values but density and seed) is shown first.

    Raises:
        UserError: no cell has a complete best trial whose layers can be read, or there is no such series.
    """
    rows = _rows(gathered)
    if rows.empty:
        raise UserError(f"{gathered.sweep.path.name} has no best trial with rows of layers: wait for a complete one")
    names = list(dict.fromkeys(rows["series"]))
    if series is not None and series not in names:
        raise UserError(unknown_name("series", series, names))
    empty = rows[rows["density_percent"] == 0]
    notes = ["means over seeds of the best trials of the cells"]
    if len(empty):
        notes.append(f"× marks {len(empty)} layers without any remaining weight")
    return Figure(
        "layer_density", "Density by layer", _in_words(rows), _spec(rows, names, series), rows, tuple(notes), 5,
        canvas=len(rows) > MANY_MARKS,
    )  # fmt: skip


def _rows(gathered: Gathered) -> pd.DataFrame:
    groups = _groups(gathered)
    found = _densities(gathered, {trial: number for number, one in enumerate(groups) for trial in one[2]})
    several = found.groupby("group")["level"].nunique() > 1
    order: dict[tuple[int, str], int] = {}
    counts: dict[int, int] = {}
    rows = []
    for row in found.to_dict("records"):
        series, (asked, density), _ = groups[group := row.pop("group")]
        if (place := (group, row["layer"])) not in order:
            order[place] = counts[group] = counts.get(group, -1) + 1
        name = ", ".join(filter(None, [series, asked])) if several[group] else series
        column = f"{row['whole_density_percent']:.3g}" if several[group] or not density else density
        level = row["level"] if several[group] else None
        rows.append(
            {"series": name, "asked": asked, "column": column, "layer_number": order[place], **row, "level": level}
        )
    return _ordered(pd.DataFrame(rows)) if rows else pd.DataFrame()


def _densities(gathered: Gathered, groups: dict[str, int]) -> pd.DataFrame:
    """Means over the trials of a group, by stage, level and layer: of methods with levels all, of others the last.

    Stages that leave the density as it is, such as finetuning, have no rows beside the stage before.
    """
    layers = gathered.sweep.layers
    mine = layers[layers["trial"].isin(list(groups)) & (layers["stage"] != _DENSE)]
    mine = mine.assign(group=mine["trial"].map(groups), level=mine["stage"] + " " + mine["level"].astype(str))
    rounds = mine.groupby(["group", "stage"])["level"].nunique().groupby("group").max()
    last = mine.drop_duplicates(["trial", "layer"], keep="last")
    mine = mine[mine["group"].map(rounds) > 1]
    mine = pd.concat([last[last["group"].map(rounds) == 1].assign(level=""), mine])
    sums = mine.groupby(["group", "level"], sort=False)[["kept", "total"]].sum()
    whole = 100 * sums["kept"].astype(float) / sums["total"].astype(float)
    new = whole[whole.groupby("group").diff().abs().fillna(1) > 1e-9]
    table = mine.groupby(["group", "level", "layer"], sort=False).agg(
        weights=("total", "max"), kept=("kept", "mean"), density_percent=("density", "mean"),
        density_std_percent=("density", "std"), n=("trial", "nunique"),
    )  # fmt: skip
    table[["density_percent", "density_std_percent"]] *= 100
    table["whole_density_percent"] = whole
    kept: pd.DataFrame = table[table.index.droplevel("layer").isin(new.index)].reset_index()
    return kept


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows by series, then by level, from dense to sparse; columns with the same text get a number."""
    places = rows.groupby(["series", "asked", "level"], sort=False, dropna=False).ngroup()
    first = rows.assign(place=places).drop_duplicates("place")
    levels, number = first["level"].notna(), first["series"].map(list(dict.fromkeys(rows["series"])).index)
    sparse = (-first["whole_density_percent"]).mask(levels, 0.0)  # levels stay in the order in which they were run
    first = first.assign(number=number, sparse=sparse).sort_values(["number", "sparse"], kind="stable")
    seen: dict[tuple[str, str], int] = {}
    names: dict[int, tuple[int, str]] = {}
    for number, row in enumerate(first.to_dict("records")):
        count = seen[row["series"], row["column"]] = seen.get((row["series"], row["column"]), 0) + 1
        names[row["place"]] = (number, row["column"] if count == 1 else f"{row['column']} ({count})")
    rows = rows.assign(column=[names[place][1] for place in places], column_number=[names[p][0] for p in places])
    ordered: pd.DataFrame = rows.sort_values(["column_number", "layer_number"], ignore_index=True)
    return ordered


def _groups(gathered: Gathered) -> list[tuple[str, tuple[str, str], list[str]]]:
    """Series, grid values (as text; the density in percent) and best trials, of cells that differ in seeds only."""
    paths = [path for path in gathered.space.paths if path != "seed"]
    found: dict[tuple[Any, ...], list[str]] = {}
    for cell in gathered.cells:
        found.setdefault(cell.group, []).extend(row["trial"] for row in cell.figures)
    values = [dict(zip(paths, group, strict=True)) for group in found]
    varying = series_paths(gathered.sweep, gathered.space, gathered.cells)
    trials = gathered.sweep.trials.set_index("trial")
    asked_column = config_column("density")
    groups = []
    for one, mine in zip(values, found.values(), strict=True):
        if not mine:
            continue
        series = ", ".join(str(one[path]) for path in varying if one[path] is not None)
        density: Any = one.get("density", trials.at[mine[0], asked_column] if asked_column in trials else None)
        known = isinstance(density, (int, float)) and density == density
        text = ", ".join(f"{path}={value}" for path, value in one.items() if path not in varying and value is not None)
        groups.append((series, (text, f"{100 * density:.4g}" if known else ""), mine))
    names = [series for series, _, _ in groups]
    if len(set(names)) == 1 and not names[0]:
        method = str(trials.at[groups[0][2][0], "method"])
        groups = [(method, asked, mine) for _, asked, mine in groups]
    return groups


def _in_words(rows: pd.DataFrame) -> str:
    """One sentence per series: the densest and the sparsest layer of its sparsest column."""
    each = []
    for series, part in rows.groupby("series", sort=False):
        last = part[part["whole_density_percent"] == part["whole_density_percent"].min()]
        low, high = last.loc[last["density_percent"].idxmin()], last.loc[last["density_percent"].idxmax()]
        empty = int((last["density_percent"] == 0).sum())
        each.append(
            f"{series} at {low['whole_density_percent']:.3g} % density: from {low['density_percent']:.3g} % in "
            f"{low['layer']} to {high['density_percent']:.3g} % in {high['layer']}"
            + (f", {empty} of {len(last)} layers empty" if empty else "")
        )
    return "Heat map of density by layer, on a logarithmic scale. " + "; ".join(each) + "."


def _spec(rows: pd.DataFrame, names: list[str], series: str | None) -> dict[str, Any]:
    filled = rows.loc[rows["density_percent"] > 0, "density_percent"]
    lowest = min(float(filled.min()) if len(filled) else 1.0, 50.0)
    most = int(rows.groupby("series")["layer"].nunique().max())
    columns = int(rows.groupby("series")["column"].nunique().max())
    x = {
        "field": "column", "type": "nominal", "sort": {"field": "column_number", "op": "min"},
        "title": "density [%]: asked, or reached at each level",
        "axis": {"labelAngle": 0 if columns <= 6 else -60, "labelOverlap": "greedy", "ticks": False},
    }  # fmt: skip
    y = {
        "field": "layer", "type": "nominal", "sort": {"field": "layer_number", "op": "min"}, "title": None,
        "axis": {"labelOverlap": "greedy", "labelLimit": 140, "ticks": False},
    }  # fmt: skip
    legend = {
        "orient": "bottom",
        "direction": "horizontal",
        "offset": 8,
        "gradientLength": {"expr": "min(220, width * 0.6)"},
    }
    colour = {
        "field": "density_percent", "type": "quantitative", "title": "density [%]",
        "scale": {"type": "log", "domain": [lowest, 100]}, "legend": {**legend, "tickCount": 4, "format": "~g"},
    }  # fmt: skip
    spec: dict[str, Any] = {
        "data": {"name": "rows"},
        "height": max(60, most * (17 if most <= 40 else 14 if most <= 80 else 8)),
        "encoding": {"x": x, "y": y, "tooltip": _TOOLTIP},
        "layer": [
            {
                "transform": [{"filter": "datum.density_percent > 0"}],
                "mark": "rect",
                "encoding": {"color": colour},
            },
            {"transform": [{"filter": "datum.density_percent === 0"}], "mark": {"type": "text", "text": "×"}},
        ],
    }
    if len(names) > 1:
        spec["params"] = [*SIZE_PARAMS, choice("series_shown", "method", names, series)]
        spec["transform"] = [only_chosen("series", "series_shown")]
        spec |= chosen_title("series_shown")
    return spec
