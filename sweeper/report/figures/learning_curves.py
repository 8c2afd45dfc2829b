"""Learning curves by cell: a column of ``epochs`` over all epochs of a trial, with its stages and levels marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sweeper.columns import config_column
from sweeper.report.elements.axes import SIZE_PARAMS, legend_below
from sweeper.report.elements.curves import Thinned, over_all_epochs, thinned
from sweeper.report.elements.panels import chosen_title
from sweeper.report.figure import Figure
from sweeper.report.gathered import Gathered
from sweeper.report.packed import rows_for_vega
from sweeper.results.cell_trials import searched_values
from sweeper.results.rows_of_frames import rows_of
from trials.errors import UserError, unknown_name

COLUMNS_OF_CURVES = {
    "val_accuracy": ("val_accuracy_percent", "validation accuracy [%]", 100.0),
    "val_loss": ("val_loss_nats", "validation loss [nats]", 1.0),
    "density": ("density_percent", "density: weights kept [%]", 100.0),
    "lr": ("lr", "learning rate", 1.0),
}
"""What a curve may show: columns of ``epochs``, each with the figure's column, the axis's title and a factor."""

ROLES = ("best of its cell", "failed", "confirmation", "running", "complete", "pruned")
"""What is told apart, in the order of the theme's colours."""

WITHOUT_CELL = "all trials"

_BEST_VAL = (
    "stages with report best_val: the last point is the network of the best epoch, with which the trial goes on, and "
    "not that of the last epoch"
)

_SEVERAL = 12
"""With more curves than this in a cell, those that are not the best are fainter."""


def draw(gathered: Gathered, cell: str = "", column: str = "val_accuracy") -> Figure:
    """Return the curves of all trials; the page lets the reader choose the cell and the column.

    Epochs count on from stage to stage, dense training included; epoch 0 of a stage is the network that it starts with.
    The bands are the stages and levels of the cell's best trial. Crosses and triangles are the ends of failed and of
    pruned trials. Curves of more than 200 points are thinned: first and last epochs of stages and the best epoch stay.

    Args:
        gathered: the sweep.
        cell: a cell's key, to show it alone; by default all, beginning with the cell of the best trial.
        column: one of :data:`COLUMNS_OF_CURVES` to begin with.

    Raises:
        UserError: no trial has rows yet, or there is no such cell or column.
    """
    if column not in COLUMNS_OF_CURVES:
        raise UserError(unknown_name("column", column, list(COLUMNS_OF_CURVES)))
    trials = _trials(gathered)
    there_are = set(trials["cell"])
    cells = [key for key in _cells(gathered, trials) if key in there_are]
    if cell and cell not in cells:
        raise UserError(unknown_name("cell", cell, cells))
    cells = [cell] if cell else cells
    trials = trials[trials["cell"].isin(cells)]
    epochs = over_all_epochs(gathered.sweep.epochs[gathered.sweep.epochs["trial"].isin(set(trials["trial"]))])
    if epochs.empty:
        raise UserError(f"{gathered.sweep.path.name} has no epoch yet: wait for the first commit of a trial")
    there = {name: of for name, of in COLUMNS_OF_CURVES.items() if name in epochs and epochs[name].notna().any()}
    if column not in there:
        raise UserError(f"no trial has {column!r} in its epochs: choose one of {', '.join(there)}")
    with_curves = set(trials["cell"][trials["trial"].isin(set(epochs["trial"]))])
    cells = [key for key in cells if key in with_curves]
    sign = 1 if "val_accuracy" in there else -1
    found = thinned(_rows(epochs, trials, there), best=next(iter(there.values()))[0], sign=sign)
    return Figure(
        "learning_curves",
        "Learning curves",
        _in_words(found.rows, cells, there),
        _spec(found.rows, epochs, trials, cells, there, column),
        found.rows,
        notes=tuple(_notes(found, trials, epochs)),
        digits=4,
        canvas=True,
    )


def _trials(gathered: Gathered) -> pd.DataFrame:
    """The trials that may have curves: ``trial``, ``cell``, ``role``, ``error`` and ``about``, in one line of text."""
    best = {row["trial"] for cell in gathered.cells if cell.best for row in cell.best.rows}
    fields = [config_column(path) for path in gathered.space.search]
    wanted = {"trial", "cell", "status", "confirms", "error_type", "error_message", "seed", *fields}
    rows = []
    for row in rows_of(gathered.sweep.trials, wanted):
        role = "confirmation" if row["confirms"] is not None else "best of its cell" if row["trial"] in best else ""
        status = row["status"] if row["status"] in ROLES else "running"
        about = [f"seed={row['seed']}"] if row.get("seed") is not None else []
        about += [text] if (text := searched_values([row], list(gathered.space.search))) else []
        error = f"{row['error_type']}: {' '.join((row['error_message'] or '').split())}" if row["error_type"] else ""
        rows.append(
            {"trial": row["trial"], "cell": row["cell"] or WITHOUT_CELL, "status": status,
             "role": status if status in ("failed", "pruned") else role or status,
             "error": error[:200], "about": "  ".join(about)}
        )  # fmt: skip
    frame: pd.DataFrame = pd.DataFrame(rows, columns=["trial", "cell", "status", "role", "error", "about"])
    return frame


def _cells(gathered: Gathered, trials: pd.DataFrame) -> list[str]:
    """The cells in the grid's order, but for the cell of the best trial, which comes first."""
    objective = gathered.space.objectives[0]
    known = [cell for cell in gathered.cells if cell.best is not None]
    ordered = [cell.trials[0].get("cell") or WITHOUT_CELL for cell in gathered.cells]
    if known and gathered.has_space:
        best = max(known, key=lambda cell: objective.sign * cell.best.value(objective))  # type: ignore[union-attr]
        ordered.insert(0, best.trials[0].get("cell") or WITHOUT_CELL)
    return list(dict.fromkeys([*ordered, *trials["cell"]]))


def _rows(epochs: pd.DataFrame, trials: pd.DataFrame, there: Mapping[str, tuple[str, str, float]]) -> pd.DataFrame:
    of = trials.set_index("trial")
    rows: pd.DataFrame = pd.DataFrame(
        {
            "trial": epochs["trial"],
            "cell": epochs["trial"].map(of["cell"]),
            "role": epochs["trial"].map(of["role"]),
            "stage": epochs["stage"],
            "level": epochs["level"],
            "epoch": epochs["total_epoch"],
        }
    )
    for name, (shown, _, factor) in there.items():
        rows[shown] = factor * epochs[name]
    return rows


def _notes(found: Thinned, trials: pd.DataFrame, epochs: pd.DataFrame) -> list[str]:
    without = trials[~trials["trial"].isin(set(epochs["trial"]))]
    counts = without["status"].value_counts().to_dict()
    each = ", ".join(f"{count} {status}" for status, count in counts.items())
    ended = trials[trials["status"].isin(["failed", "pruned"])]["status"].value_counts().to_dict()
    marked = ", ".join(f"{count} {status}" for status, count in ended.items())
    best_val = "report" in epochs and (epochs["report"] == "best_val").any()
    return [
        *([_BEST_VAL] if best_val else []),
        *([found.said] if found.said else []),
        *([f"{len(without)} trials have no epoch yet and no curve: {each}"] if len(without) else []),
        *([f"marked where they end: {marked}"] if marked else []),
    ]


def _in_words(rows: pd.DataFrame, cells: Sequence[str], there: Mapping[str, tuple[str, str, float]]) -> str:
    shown, title, _ = next(iter(there.values()))
    each = []
    for key, part in rows[rows["role"] == "best of its cell"].groupby("cell", sort=False):
        last = part.drop_duplicates("trial", keep="last")
        ends = ", ".join(f"{value:.4g}" for value in last[shown].dropna())
        each.append(f"{key}: {ends or 'unknown'} after {int(last['epoch'].max())} epochs")
    more = f"; and {len(each) - 8} more cells" if len(each) > 8 else ""
    best = f" At the end of the best trials, {title}: {'; '.join(each[:8])}{more}." if each else ""
    cell = f"{len(cells)} cell{'s' * (len(cells) > 1)}"
    return f"{rows['trial'].nunique()} learning curves in {cell}, over all epochs of a trial.{best}"


def _spec(
    rows: pd.DataFrame, epochs: pd.DataFrame, trials: pd.DataFrame, cells: Sequence[str],
    there: Mapping[str, tuple[str, str, float]], column: str,
) -> dict[str, Any]:  # fmt: skip
    choices = {shown: title for shown, title, _ in there.values()}
    several = len(cells) > 1
    pick_cell = {"bind": {"input": "select", "options": list(cells), "name": "cell "}} if several else {}
    listed = {"input": "select", "options": list(choices), "labels": list(choices.values())}
    crowded = int(trials.groupby("cell").size().max()) > _SEVERAL
    params = [
        *SIZE_PARAMS,
        {"name": "cell", "value": cells[0], **pick_cell},
        {"name": "curve", "value": there[column][0], "bind": {**listed, "name": "curve "}},
        {"name": "titles", "value": choices},
        {"name": "about", "value": dict(zip(trials["trial"], trials["about"], strict=True))},
    ]
    here = {"filter": "datum.cell === cell"}
    x = {"field": "epoch", "type": "quantitative", "title": "epochs, dense training included",
         "scale": {"nice": False, "zero": True}, "axis": {"tickMinStep": 1, "grid": False}}  # fmt: skip
    y = {"field": "shown", "type": "quantitative", "scale": {"zero": False},
         "axis": {"title": {"expr": "titles[curve]"}}}  # fmt: skip
    value = {"calculate": "datum[curve]", "as": "shown"}
    return {
        "data": {"name": "rows"},
        "params": params,
        **(chosen_title("cell") if cells != [WITHOUT_CELL] else {}),
        "layer": [
            *_stage_layers(_stages(epochs, trials), here, x),
            *_curve_layers([here, value, {"filter": "isValid(datum.shown)"}], x, y, _present(rows), crowded),
            *_end_layers(_ends(rows, trials), [here, value, {"filter": "isValid(datum.shown)"}], x, y, _present(rows)),
        ],
    }


def _present(rows: pd.DataFrame) -> list[str]:
    there = set(rows["role"])
    return [role for role in ROLES if role in there]


def _stages(epochs: pd.DataFrame, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """The stages and levels of one trial of each cell: the best, or else the one with the most epochs."""
    length = epochs.groupby("trial", sort=False)["total_epoch"].max()
    of = trials.assign(length=trials["trial"].map(length), best=trials["role"] == "best of its cell")
    chosen = of[of["length"].notna()].sort_values(["best", "length"], ascending=False).drop_duplicates("cell")
    ends = epochs[epochs["trial"].isin(set(chosen["trial"]))].drop_duplicates(["trial", "span"], keep="last")
    spans = dict(list(ends.groupby("trial")[["stage", "level", "total_epoch"]]))
    found = []
    for trial, cell, total in zip(chosen["trial"], chosen["cell"], chosen["length"], strict=True):
        levels, begin = spans[trial]["level"].nunique() > 2, 0
        for number, (stage, level, end) in enumerate(spans[trial].itertuples(index=False, name=None)):
            if end > begin:
                label = f"{stage} {level}" if levels and stage != "pretrain" else str(stage)
                share = (end - begin) / total
                short = str(level) if levels and stage != "pretrain" else ""
                found.append({"cell": cell, "begin": int(begin), "end": int(end), "label": label, "short": short,
                              "share": round(float(share), 4), "odd": number % 2})  # fmt: skip
            begin = max(begin, end)
    return found


def _stage_layers(stages: Sequence[dict[str, Any]], here: dict[str, Any], x: dict[str, Any]) -> list[dict[str, Any]]:
    begin, end = {**x, "field": "begin"}, {"field": "end"}
    fits = "datum.share * total_px * 0.85 > 0.6 * font_px * length(datum.{0}) + 4"
    text = f"{fits.format('label')} ? datum.label : {fits.format('short')} ? datum.short : ''"
    data = {"values": list(stages)}
    middle = {"calculate": "(datum.begin + datum.end) / 2", "as": "middle"}
    label = {"type": "text", "baseline": "bottom", "align": "center", "clip": False}
    return [
        {"data": data, "transform": [here, {"filter": "datum.odd === 1"}],
         "mark": {"type": "rect", "color": "#8c959f", "opacity": 0.13},
         "encoding": {"x": begin, "x2": end, "tooltip": {"field": "label"}}},
        {"data": data, "transform": [here, {"filter": "datum.begin > 0"}],
         "mark": {"type": "rule", "strokeDash": [2, 3]}, "encoding": {"x": begin}},
        {"data": data, "transform": [here, middle, {"calculate": text, "as": "fitting"}], "mark": label,
         "encoding": {"x": {**x, "field": "middle"}, "y": {"value": -3}, "text": {"field": "fitting"}}},
    ]  # fmt: skip


def _colour(roles: Sequence[str]) -> dict[str, Any]:
    legend = legend_below(roles, values=list(roles), symbolType="stroke", symbolStrokeWidth=3)
    return {"field": "role", "type": "nominal", "title": None, "scale": {"domain": list(ROLES)}, "legend": legend}


def _curve_layers(
    transform: Sequence[dict[str, Any]], x: dict[str, Any], y: dict[str, Any], roles: Sequence[str], crowded: bool
) -> list[dict[str, Any]]:
    """The curves, and those of the best trials on top of them."""
    colour = _colour(roles)
    tooltip = [{"field": "trial"}, {"field": "role"}, {"field": "described", "title": "about"}]
    trial = {"field": "trial", "type": "nominal"}
    common = {"x": x, "y": y, "detail": trial, "stroke": colour, "order": {"value": None}, "tooltip": tooltip}
    seen = [*transform, {"calculate": "about[datum.trial]", "as": "described"}]
    best = "datum.role === 'best of its cell'"
    hovered = {
        "name": "hovered",
        "select": {"type": "point", "fields": ["trial"], "on": "pointerover", "toggle": False},
    }
    faint = {"condition": {"param": "hovered", "empty": False, "value": 1}, "value": 0.3 if crowded else 0.6}
    return [
        {"transform": [*seen, {"filter": f"!({best})"}], "params": [hovered],
         "mark": {"type": "line", "strokeWidth": 1.2, "clip": True}, "encoding": {**common, "opacity": faint}},
        {"transform": [*seen, {"filter": best}], "mark": {"type": "line", "strokeWidth": 2.4, "clip": True},
         "encoding": common},
    ]  # fmt: skip


def _ends(rows: pd.DataFrame, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """The last rows of failed and pruned trials, and those of curves of one point, which a line does not show."""
    last = rows.drop_duplicates("trial", keep="last")
    alone = rows.groupby("trial")["epoch"].transform("size").reindex(last.index) == 1
    ended = last[last["role"].isin(["failed", "pruned"]) | alone]
    errors = dict(zip(trials["trial"], trials["error"], strict=True))
    marks = {"failed": "failed", "pruned": "pruned"}
    return [
        {**row, "mark": marks.get(row["role"], "one epoch"), "error": errors.get(row["trial"], "")}
        for row in rows_for_vega(ended)
    ]


def _end_layers(
    ends: Sequence[dict[str, Any]], transform: Sequence[dict[str, Any]], x: dict[str, Any], y: dict[str, Any],
    roles: Sequence[str],
) -> list[dict[str, Any]]:  # fmt: skip
    if not ends:
        return []
    scale = {"domain": ["failed", "pruned", "one epoch"], "range": ["cross", "triangle-right", "circle"]}
    tooltip = [{"field": name} for name in ("trial", "role", "stage", "epoch", "error")]
    shape = {"field": "mark", "type": "nominal", "scale": scale, "legend": None}
    encoding = {"x": x, "y": y, "stroke": _colour(roles), "shape": shape, "tooltip": tooltip, "size": {"value": 90}}
    data, mark = {"values": list(ends)}, {"type": "point", "filled": False, "strokeWidth": 2}
    return [{"data": data, "transform": list(transform), "mark": mark, "encoding": encoding}]
