"""Regrowth: where it put its budget, what its episodes were rewarded, and accuracy and densities stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sweeper.report.elements.axes import legend_below
from sweeper.report.elements.panels import MANY_MARKS, MOST_COLOURS, choice, short_keys, stacked
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.results.frames import SweepTables
from sweeper.results.regrowth import applied_allocations, table_retention, table_sparsity_accuracy
from trials.errors import UserError, unknown_name

MOST_COLUMNS = 40
"""Most columns of a heat map whose names are readable; further ones are left out, and a note says so."""

_SHARES = {"budget": "share_of_budget_percent", "capacity": "share_of_capacity_percent"}

_MEASURES = {"share of the budget": "budget", "share of the pruned weights": "capacity"}


def draw(gathered: Gathered, share: str = "budget") -> Figure:
    """Return how regrowth divided its budget over the layers, and what came of it.

    Panels, as far as there is something to show: accuracy over sparsity (%) at the end of every stage of every trial;
    by layer, the share of the budget that it got or the share of its pruned weights that returned (%), for every trial
    and round, the best trials of the cells first if not all fit; the rewards of their episodes; and the density (%) by
    layer at the end of every stage.

    Args:
        gathered: the sweep.
        share: ``budget`` or ``capacity``, which of the two is shown first.

    Raises:
        UserError: nothing has been regrown yet.
    """
    if share not in _SHARES:
        raise UserError(unknown_name("share", share, _SHARES))
    if applied_allocations(gathered.sweep).empty:
        raise UserError(f"{gathered.sweep.path.name} has regrown nothing: no trial has finished a round of regrowth")
    return draw_stages(gathered, share)


def draw_stages(gathered: Gathered, share: str = "budget") -> Figure:
    """Like :func:`draw`, also of a sweep that has regrown nothing: then with the first and the last panel alone.

    Raises:
        UserError: no trial has finished a stage.
    """
    sweep = gathered.sweep
    if sweep.layers.empty:
        raise UserError(f"{sweep.path} has no trial that has finished a stage: run it first")
    applied = applied_allocations(sweep)
    names, left_out = _columns(gathered, applied)
    divided = _divided(applied, names)
    episodes = _episodes(sweep, names)
    stages, stages_left_out = _stages(sweep)
    rows = pd.concat([_accuracies(sweep), divided, episodes, stages], ignore_index=True)
    order = {layer: number for number, layer in enumerate(dict.fromkeys(sweep.layers["layer"]))}
    rows["layer_number"] = [order.get(layer, len(order)) if isinstance(layer, str) else None for layer in rows["layer"]]
    notes = [f"{left_out} more rounds are not shown"] if left_out else []
    notes += [f"{stages_left_out} more stages of trials are not shown by layer"] if stages_left_out else []
    stages_run = list(dict.fromkeys(sweep.epochs["stage"]))  # a trial has its stages in the order in which it ran them
    return Figure(
        "regrowth", "Regrowth", _in_words(divided, episodes, stages_run), _spec(rows, share, stages_run), rows,
        tuple(notes), 5, canvas=len(rows) > MANY_MARKS,
    )  # fmt: skip


def _columns(gathered: Gathered, applied: pd.DataFrame) -> tuple[dict[tuple[str, int], str], int]:
    """A name per trial and round that is shown, the best trials first if not all fit, and how many are left out."""
    places = list(dict.fromkeys(zip(applied["trial"], applied["step"], strict=True)))
    if len(places) > MOST_COLUMNS:
        places.sort(key=lambda place: place[0] not in gathered.figure_trials)  # stable: otherwise in their order
    shown = places[:MOST_COLUMNS]
    trials = gathered.sweep.trials
    cells = dict(zip(trials["trial"], trials["cell"].fillna(""), strict=True))
    keys = short_keys([cells.get(trial, "") for trial, _ in shown])
    several = len({step for _, step in shown}) > 1
    names: dict[tuple[str, int], str] = {}
    for trial, step in shown:
        name = f"{keys[cells.get(trial, '')] or trial[-6:]}{f' round {step}' if several else ''}"
        names[trial, step] = f"{name} {trial[-6:]}" if name in names.values() else name
    return names, len(places) - len(shown)


def _divided(applied: pd.DataFrame, names: dict[tuple[str, int], str]) -> pd.DataFrame:
    column = [names.get(place) for place in zip(applied["trial"], applied["step"], strict=True)]
    rows = pd.DataFrame(
        {
            "kind": "division", "trial": applied["trial"], "step": applied["step"], "column": column,
            "layer": applied["layer"], "capacity": applied["capacity"], "count": applied["count"],
            "share_of_budget_percent": 100 * applied["share"].astype(float),
            "share_of_capacity_percent": 100 * applied["regrown"].astype(float),
        }
    )  # fmt: skip
    kept: pd.DataFrame = rows[rows["column"].notna()]
    return kept


def _episodes(sweep: SweepTables, names: dict[tuple[str, int], str]) -> pd.DataFrame:
    """The reward of every episode; nothing for rules, which try none."""
    found = sweep.allocations.drop_duplicates(["trial", "step", "episode"])
    found = found[found["reward"].notna()]
    column = [names.get(place) for place in zip(found["trial"], found["step"], strict=True)]
    values = {name: found[name] for name in ("trial", "step", "episode", "reward")}
    rows: pd.DataFrame = pd.DataFrame({"kind": "episode", **values, "column": column})
    kept: pd.DataFrame = rows[rows["column"].notna()]
    return kept


def _accuracies(sweep: SweepTables) -> pd.DataFrame:
    table = table_sparsity_accuracy(sweep)
    rows: pd.DataFrame = pd.DataFrame(
        {
            "kind": "accuracy", "trial": table["owner"], "stage": table["stage"], "level": table["level"],
            "sparsity_percent": 100 * table["sparsity"], "test_accuracy_percent": 100 * table["test_accuracy"],
            "kept": table["kept"],
        }
    )  # fmt: skip
    return rows


def _stages(sweep: SweepTables) -> tuple[pd.DataFrame, int]:
    """Density by layer and stage of the first trials, and the number of columns that are left out."""
    table = table_retention(sweep)
    shown = table.iloc[:, :MOST_COLUMNS]
    rows = [
        {
            "kind": "stage", "trial": trial, "stage": stage, "level": level, "layer": layer,
            "column": f"{str(trial)[-6:]} {stage} {level}", "density_percent": 100 * float(value),
        }
        for (trial, stage, level), values in shown.items()
        for layer, value in values.items()
        if pd.notna(value)
    ]  # fmt: skip
    return pd.DataFrame(rows), table.shape[1] - shown.shape[1]


def _in_words(divided: pd.DataFrame, episodes: pd.DataFrame, stages: Sequence[str]) -> str:
    """Which layers got most, and from where to where accuracy went."""
    text = [f"Test accuracy over sparsity at the end of the stages {', '.join(stages)}."]
    if len(divided):
        means = divided.groupby("layer", sort=False)["share_of_budget_percent"].mean().sort_values(ascending=False)
        each = ", ".join(f"{layer} {share:.1f} %" for layer, share in means.head(5).items())
        text.append(f"Mean share of the budget over {divided['column'].nunique()} regrowths: {each}.")
    if len(episodes):
        best = episodes.groupby("column")["reward"].max()
        text.append(f"Best reward of {len(episodes)} episodes: {best.min():.4g} to {best.max():.4g}.")
    return " ".join(text)


def _spec(rows: pd.DataFrame, share: str, stages: Sequence[str]) -> dict[str, Any]:
    kinds = set(rows["kind"])
    views = [_accuracy_panel(stages)] if "accuracy" in kinds else []
    top: dict[str, Any] = {}
    if "division" in kinds:
        names = list(_MEASURES)
        top["params"] = [choice("share_shown", "division", names, names[list(_MEASURES.values()).index(share)])]
        views.append(_division_panel(rows[rows["kind"] == "division"]))
    if "episode" in kinds:
        views.append(_episode_panel(rows[rows["kind"] == "episode"]))
    if "stage" in kinds:
        views.append(_stage_panel(rows[rows["kind"] == "stage"]))
    spec = stacked(views, **top)
    return {**spec, "resolve": {"scale": {"color": "independent", "shape": "independent"}}} if len(views) > 1 else spec


def _accuracy_panel(stages: Sequence[str]) -> dict[str, Any]:
    stage = {
        "field": "stage",
        "type": "nominal",
        "sort": list(stages),
        "title": None,
        "legend": legend_below(stages, offset=6),
    }
    x = {
        "field": "sparsity_percent",
        "type": "quantitative",
        "title": "sparsity [%]",
        "scale": {"zero": False, "nice": False, "padding": 8},
    }
    y = {"field": "test_accuracy_percent", "type": "quantitative", "title": "test accuracy [%]"}
    tooltip = [
        {"field": "trial"},
        {"field": "stage"},
        {"field": "level"},
        {"field": "sparsity_percent", "title": "sparsity %", "format": ".2f"},
        {"field": "test_accuracy_percent", "title": "test accuracy %", "format": ".2f"},
    ]
    stage["scale"] = {"domain": list(stages)}
    return {
        "height": 170,
        "transform": [{"filter": "datum.kind === 'accuracy'"}],
        "mark": "point",
        "encoding": {
            "x": x,
            "y": {**y, "scale": {"zero": False, "padding": 8}},
            "color": stage,
            "shape": stage,
            "tooltip": tooltip,
        },
    }


def _heat_map(
    part: pd.DataFrame, kind: str, colour: dict[str, Any], tooltip: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Layers by columns; the latter are in the order of the rows."""
    layers, columns = (int(part[name].nunique()) for name in ("layer", "column"))
    axis = {"labelAngle": -50, "labelLimit": 120, "ticks": False, "labelOverlap": "greedy"}
    return {
        "height": max(50, layers * (17 if layers <= 40 else 14 if layers <= 80 else 8)),
        "transform": [{"filter": f"datum.kind === {kind!r}"}],
        "mark": "rect",
        "encoding": {
            "x": {"field": "column", "type": "nominal", "sort": None, "title": None,
                  "axis": {**axis, "labelAngle": 0} if columns <= 3 else axis},
            "y": {"field": "layer", "type": "nominal", "sort": {"field": "layer_number", "op": "min"}, "title": None,
                  "axis": {"labelOverlap": "greedy", "labelLimit": 140, "ticks": False}},
            "color": {"type": "quantitative", **colour, "scale": {"domain": [0, 100]},
                      "legend": {"orient": "bottom", "direction": "horizontal", "offset": 6}},
            "tooltip": list(tooltip),
        },
    }  # fmt: skip


def _division_panel(part: pd.DataFrame) -> dict[str, Any]:
    tooltip = [
        {"field": "column", "title": "cell"},
        {"field": "trial"},
        {"field": "layer"},
        {"field": "capacity", "title": "pruned weights", "format": ","},
        {"field": "count", "title": "regrown", "format": ","},
        {"field": "share_of_budget_percent", "title": "of the budget %", "format": ".1f"},
        {"field": "share_of_capacity_percent", "title": "of the pruned weights %", "format": ".1f"},
    ]
    view = _heat_map(part, "division", {"field": "share_percent", "title": "regrown: share [%]"}, tooltip)
    budget, capacity = _SHARES["budget"], _SHARES["capacity"]
    shown = f"share_shown === {next(iter(_MEASURES))!r} ? datum.{budget} : datum.{capacity}"
    return {**view, "transform": [*view["transform"], {"calculate": shown, "as": "share_percent"}]}


def _episode_panel(part: pd.DataFrame) -> dict[str, Any]:
    """Rewards over episodes; a line per round in a colour of its own as long as there are enough colours."""
    few = part["column"].nunique() <= MOST_COLOURS
    line = {"field": "column", "type": "nominal", "sort": None}
    own: dict[str, Any] = {"color": {**line, "type": "ordinal", "legend": None}, "opacity": {"value": 0.7}}
    if few:
        own = {
            "color": {
                **line,
                "title": None,
                "legend": legend_below(list(part["column"]), offset=6, symbolType="circle"),
            }
        }
    y = {"field": "reward", "type": "quantitative", "title": "reward", "scale": {"zero": False, "padding": 6}}
    tooltip = [{"field": "column", "title": "cell"}, {"field": "episode"}, {"field": "reward", "format": ".4~g"}]
    return {
        "height": 120,
        "transform": [{"filter": "datum.kind === 'episode'"}],
        "mark": {"type": "line", "strokeWidth": 1.2, "point": {"size": 14}},
        "encoding": {
            "x": {"field": "episode", "type": "quantitative", "title": "episode", "axis": {"tickMinStep": 1}},
            "y": y, "tooltip": tooltip, **own,
        },
    }  # fmt: skip


def _stage_panel(part: pd.DataFrame) -> dict[str, Any]:
    tooltip = [{"field": "trial"}, {"field": "stage"}, {"field": "level"}, {"field": "layer"}]
    density = {"field": "density_percent", "title": "density %", "format": ".4~g"}
    return _heat_map(part, "stage", {"field": "density_percent", "title": "density [%]"}, [*tooltip, density])
